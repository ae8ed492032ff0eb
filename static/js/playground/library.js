// The vectors a lane may use, by id and by content.
export async function loadLibrary() {
  const response = await fetch('/vectors/library.json', { headers: { Accept: 'application/json' } });
  if (!response.ok) throw new Error(`The list of vectors could not be read (${response.status}). Reload the page.`);
  return new Library((await response.json()).vectors);
}

export class Library {
  constructor(vectors) {
    this.all = vectors;
    this.byId = new Map(vectors.map(vector => [vector.id, vector]));
    this.byContent = new Map(vectors.map(vector => [vector.content_id, vector]));
  }

  /** A chip with which `vector` acts as it was recommended. */
  static intervention(vector) {
    return {
      vector: vector.id, layer: vector.recommended_layer, operation: 'add', strength: vector.recommended_strength, unit: 'relative',
      positions: { prompt: true, generated: true, start: null, stop: null, special: true }, on: true,
    };
  }

  nameOf(contentId) {
    return this.byContent.get(contentId)?.name ?? (contentId ? `vector ${contentId.slice(0, 8)}` : 'direction');
  }
}
