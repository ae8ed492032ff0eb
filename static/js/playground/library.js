// The vectors a lane may use, by id and by content, and the presets that may be loaded into one.
export async function loadLibrary() {
  const [{ vectors }, { presets, lent }, { behaviors }] = await Promise.all([read('/vectors/library.json', 'vectors'), loadPresets(), read('/behaviors/library.json', 'behaviors')]);
  return new Library(vectors, presets, lent, behaviors);
}

/** { presets, lent }: `lent` are vectors of others, which act through their presets and are in nobody else's list. */
export const loadPresets = () => read('/presets/library.json', 'presets');

async function read(url, what) {
  const response = await fetch(url, { headers: { Accept: 'application/json' } });
  if (!response.ok) throw new Error(`The list of ${what} could not be read (${response.status}). Reload the page.`);
  return response.json();
}

export class Library {
  constructor(vectors, presets = [], lent = [], behaviors = []) {
    const known = [...lent, ...vectors];
    Object.assign(this, { all: vectors, presets, behaviors });
    this.byId = new Map(known.map(vector => [vector.id, vector]));
    this.byContent = new Map(known.map(vector => [vector.content_id, vector]));
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

  nameOf(contentId) {
    return this.byContent.get(contentId)?.name ?? (contentId ? `vector ${contentId.slice(0, 8)}` : 'direction');
  }
}
