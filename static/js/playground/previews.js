// Live previews: moving a strength asks for the first words of that lane, in a moment and in place.
//
// A preview has the sampling and the seed of the run it stands for, so that Run writes the same words and goes on.
// Requests wait until the hand rests for 120 ms, the newest one ends the older, and what was seen once is shown at once.
const REST_MS = 120;
const KEPT = 300;
const TOKENS = 24;

export class Previews {
  #timer = null;
  #nonce = 0;
  #asked = null;
  #seen = new Map();

  /** `show(lane, { text, busy, error })` draws. */
  constructor(connection, show) {
    this.connection = connection;
    this.show = show;
    connection.addEventListener('preview', ({ detail }) => this.#hear(detail));
  }

  /** Preview `lane` of `settings`; `parent` is the run that it would continue. */
  ask(lane, settings, parent) {
    clearTimeout(this.#timer);
    const { key } = lane;
    const request = { lane: key, parent, n: TOKENS, settings };
    const place = settings.seed_lock ? 0 : settings.lanes.indexOf(lane);
    const known = JSON.stringify([lane, place, parent, { ...settings, lanes: null }]);
    this.#asked = null;
    if (this.#seen.has(known)) return this.show(key, { text: this.#seen.get(known), busy: false });
    this.#timer = setTimeout(() => {
      this.#asked = { nonce: ++this.#nonce, known, key, text: '' };
      this.connection.preview({ nonce: this.#nonce, ...structuredClone(request) });
    }, REST_MS);
  }

  cancel() {
    clearTimeout(this.#timer);
    this.#asked = null;
  }

  #hear(message) {
    const asked = this.#asked;
    if (!asked || message.nonce !== asked.nonce) return;
    if (message.t === 'error') return this.show(asked.key, { text: '', busy: false, error: message.message });
    asked.text += message.s ?? '';
    if (message.done) this.#keep(asked);
    if (asked.text || message.done) this.show(asked.key, { text: asked.text, busy: !message.done });
  }

  #keep({ known, text }) {
    this.#seen.set(known, text);
    if (this.#seen.size > KEPT) this.#seen.delete(this.#seen.keys().next().value);
  }
}
