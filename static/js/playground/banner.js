// One line above the lanes for what concerns all of them: the connection, and a model that is not ready.
import { $, el } from './dom.js';

const PATIENCE_MS = 800; // a line that comes back at once is not worth a word

export class Banner {
  #timer = null;
  #line = '';
  #model = '';

  /** Draw the states of a Connection and, from the frame's `steerboard:status`, of the model. */
  constructor(connection) {
    connection.addEventListener('state', ({ detail }) => this.#connection(detail));
    document.addEventListener('steerboard:status', ({ detail }) => this.model(detail.model));
  }

  #connection(state) {
    clearTimeout(this.#timer);
    this.#line = '';
    if (state === 'signed-out') this.#line = 'signed-out';
    if (state === 'reconnecting') this.#timer = setTimeout(() => { this.#line = 'reconnecting'; this.#draw(); }, PATIENCE_MS);
    this.#draw();
  }

  model({ state, problem }) {
    this.#model = state === 'loading' ? 'The model is loading. A run started now begins as soon as it is there.' : state === 'failed' ? `The model is not available. ${problem}` : '';
    this.#draw();
  }

  #draw() {
    const text = $('banner').querySelector('p');
    if (this.#line === 'signed-out') text.replaceChildren('You are signed out. What runs goes on and is saved. ', el('a', { href: `/accounts/signin/?next=${encodeURIComponent(location.pathname)}` }, 'Sign in again'), ' to see it.');
    else if (this.#line === 'reconnecting') text.replaceChildren('The connection is lost; reconnecting. What runs goes on, and every token will be here once.');
    else text.replaceChildren(this.#model);
    $('banner').hidden = !text.textContent;
  }
}
