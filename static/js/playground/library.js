// The vectors a lane may use, by id and by content, and the presets that may be loaded into one.
export async function loadLibrary() {
  const [{ vectors }, { presets, lent }, features, { behaviors }] = await Promise.all([read('/vectors/library.json', 'vectors'), loadPresets(), loadFeatures(), read('/behaviors/library.json', 'behaviors')]);
  return new Library(vectors, presets, lent, features, behaviors);
}

/** { model, sources, features }: the autoencoders of a model, and the features that somebody named. */
export const loadFeatures = (model = '') => read(`/features/library.json${model ? `?model=${encodeURIComponent(model)}` : ''}`, 'features');

/** { presets, lent }: `lent` are vectors of others, which act through their presets and are in nobody else's list. */
export const loadPresets = () => read('/presets/library.json', 'presets');

async function read(url, what) {
  const response = await fetch(url, { headers: { Accept: 'application/json' } });
  if (!response.ok) throw new Error(`The list of ${what} could not be read (${response.status}). Reload the page.`);
  return response.json();
}

export class Library {
  #features = new Map();

  constructor(vectors, presets = [], lent = [], features = { sources: [], features: [] }, behaviors = []) {
    const known = [...lent, ...vectors];
    Object.assign(this, { all: vectors, presets, behaviors });
    this.byId = new Map(known.map(vector => [vector.id, vector]));
    this.byContent = new Map(known.map(vector => [vector.content_id, vector]));
    this.takeFeatures(features);
  }

  // ---- features ----

  takeFeatures({ sources, features }) {
    Object.assign(this, { sources, labelled: features });
    for (const feature of this.#features.values()) Object.assign(feature, this.#said(feature.feature));
  }

  /** A feature, drawn as a vector with one layer. The same object each time: `learn` fills in what the engine knows. */
  featureOf(ref) {
    const key = `${ref.source}/${ref.index}`;
    if (!this.#features.has(key)) this.#features.set(key, { id: '', feature: ref, max: null, residual: null, tagline: '', ...this.#said(ref) });
    return this.#features.get(key);
  }

  #said(ref) {
    const source = this.sources.find(s => s.id === ref.source);
    const label = this.labelled.find(f => f.source === ref.source && f.index === ref.index);
    const layer = source ? source.layer : null;
    return { name: label?.text ?? `${ref.source} #${ref.index}`, proposed: label?.proposed ?? false, usable: Boolean(source), indexed: source?.indexed ?? false, layers: layer === null ? [] : [layer], recommended_layer: layer, where: `${ref.source}/${ref.index}` };
  }

  /** What a unit of strength is worth, from the feature's own page. Resolves with the feature; trouble leaves it as it is. */
  async learn(ref) {
    const feature = this.featureOf(ref);
    if (!feature.usable || feature.learnt) return feature;
    feature.learnt = true;
    try {
      const facts = await read(`/features/${encodeURIComponent(ref.source)}/${ref.index}/facts.json`, 'facts of a feature');
      Object.assign(feature, { max: facts.max_activation, residual: facts.residual_norm && facts.decoder_norm ? facts.residual_norm / facts.decoder_norm : null });
    } catch {
      feature.learnt = false;
    }
    return feature;
  }

  /** What an intervention uses: a vector of the library, or a feature. */
  usedBy(intervention) { return intervention.feature ? this.featureOf(intervention.feature) : this.byId.get(intervention.vector); }

  /** A chip that adds a feature: its own maximum once, or a part of the residual where no corpus was indexed. */
  featureChip(ref) {
    const { indexed } = this.featureOf(ref);
    return {
      vector: '', feature: ref, layer: null, operation: 'add', strength: indexed ? 1 : 30, unit: indexed ? 'max' : 'raw',
      positions: { prompt: true, generated: true, start: null, stop: null, special: true }, on: true,
    };
  }

  /** What can be used depends on the model. */
  useOn(model) {
    if (!model) return; // not known yet: the server will refuse what cannot be used
    for (const vector of this.byId.values()) vector.usable = vector.model_id === model;
    for (const preset of this.presets) preset.usable = preset.model_id.toLowerCase() === model.toLowerCase();
  }

  /** A chip with which `vector` acts as it was recommended. */
  static intervention(vector) {
    return {
      vector: vector.id, layer: vector.recommended_layer, operation: vector.recommended_operation ?? 'add', strength: vector.recommended_dose ?? vector.recommended_strength, unit: 'relative',
      positions: { prompt: true, generated: true, start: null, stop: null, special: true }, on: true,
    };
  }

  /** The name of what a line of a receipt applied. */
  nameOfApplied(applied) { return applied.feature ? this.featureOf(applied.feature).name : this.nameOf(applied.vector_id); }

  nameOf(contentId) {
    return this.byContent.get(contentId)?.name ?? (contentId ? `vector ${contentId.slice(0, 8)}` : 'direction');
  }
}
