// Strength: a slider and a number that move together, in one of two units. The fill is an SVG attribute.
import { el, figure, svg } from './dom.js';

const WIDTH = 300;

export class Strength {
  /** `changed(value)` is called while the value moves. `mark` is drawn as a tick: the recommended strength. */
  constructor({ label, value, min, max, step, mark = null, changed }) {
    this.changed = changed;
    this.fill = svg('rect', { class: 'fill', y: 6, height: 4, x: 0, width: 0 });
    this.zero = svg('path', { class: 'tick' });
    this.band = svg('path', { class: 'recommended' });
    this.range = el('input', { type: 'range', 'aria-label': label, oninput: () => this.#move(Number(this.range.value)) });
    this.number = el('input', { class: 'form-control form-number', type: 'number', 'aria-label': `${label}, exact`, onchange: () => this.#typed() });
    this.number.addEventListener('input', () => { if (this.number.validity.valid && this.number.value !== '') this.#move(Number(this.number.value), true); });
    this.track = el('div', { class: 'strength-track' },
      svg('svg', { viewBox: `0 0 ${WIDTH} 16`, preserveAspectRatio: 'none', 'aria-hidden': 'true' },
        svg('rect', { class: 'rail', y: 6, width: WIDTH, height: 4 }), this.fill, this.band, this.zero), this.range);
    this.bounds({ min, max, step, mark });
    this.show(value);
  }

  /** New limits; the value stays. */
  bounds({ min, max, step, mark = null }) {
    Object.assign(this, { min, max, step });
    for (const [name, value] of Object.entries({ min, max, step })) this.range.setAttribute(name, value);
    this.number.setAttribute('step', 'any');
    this.zero.setAttribute('d', `M${this.#x(0)} 2v12`);
    this.band.setAttribute('d', mark === null ? 'M0 0' : `M${this.#x(mark)} 1v14`);
    if (this.value !== undefined) this.show(this.value);
  }

  show(value, keepNumber = false) {
    this.value = value;
    this.range.value = value;
    this.range.setAttribute('aria-valuetext', figure(value));
    if (!keepNumber) this.number.value = Number(value.toFixed(4));
    this.fill.setAttribute('class', value < 0 ? 'fill-neg' : 'fill');
    this.fill.setAttribute('x', Math.min(this.#x(0), this.#x(value)));
    this.fill.setAttribute('width', Math.abs(this.#x(value) - this.#x(0)));
  }

  /** Move by a number of steps, as the keys do. */
  nudge(steps) {
    const at = Math.round(this.value / this.step + steps) * this.step;
    this.#move(Math.min(this.max, Math.max(this.min, at)));
  }

  set(value) { this.#move(value); }

  #move(value, keepNumber = false) {
    this.show(value, keepNumber);
    this.changed(value);
  }

  #typed() {
    const value = Number(this.number.value);
    if (this.number.value === '' || !Number.isFinite(value)) this.show(this.value);
    else this.#move(value);
  }

  #x(value) {
    const inside = Math.min(this.max, Math.max(this.min, value));
    return (inside - this.min) / (this.max - this.min) * WIDTH;
  }
}
