// What the watches of a lane read, drawn under its text: one line of bars each, one bar a token. Also their colours.
import { el, svg } from './dom.js';
import { level, number } from '../features/tokens.js';

const HEIGHT = 22;
const REDRAW_MS = 120;

/** The class that tints a token by what watch `column` read there. */
export function watchTint(scores, column, most) {
  const value = column < 0 ? null : scores?.[column] ?? null;
  const step = value === null ? 0 : level(value, most);
  return step ? `f${step}` : '';
}

export class Traces {
  #timer = null;

  /** `page` offers watchName(name), watchMost(name), coloured (a watch's name) and colourBy(name). */
  constructor(answer, page) {
    Object.assign(this, { answer, page });
    this.rows = new Map();
    this.element = el('div', { class: 'traces', hidden: true, role: 'group', 'aria-label': 'What is watched, token by token' });
  }

  clear() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.rows.clear();
    this.element.replaceChildren();
    this.element.hidden = true;
  }

  /** Soon: events come faster than anybody sees. */
  changed() {
    this.#timer ??= setTimeout(() => { this.#timer = null; this.draw(); }, REDRAW_MS);
  }

  draw() {
    const { answer } = this;
    this.element.hidden = !answer.watches.length || !answer.tokens.length;
    if (this.element.hidden) return;
    if (this.rows.size !== answer.watches.length) this.#make();
    answer.watches.forEach((name, column) => this.#fill(name, column));
  }

  #make() {
    this.rows = new Map(this.answer.watches.map(name => [name, this.#row(name)]));
    this.element.replaceChildren(...[...this.rows.values()].map(row => row.element));
  }

  #row(name) {
    const bars = svg('path', { class: 'trace-bars' });
    const picture = svg('svg', { class: 'trace', preserveAspectRatio: 'none', role: 'img' }, bars);
    const most = el('span', { class: 'num trace-most' });
    const label = el('button', { type: 'button', class: 'trace-name', onclick: () => this.page.colourBy(name) });
    picture.addEventListener('click', event => {
      const box = picture.getBoundingClientRect();
      this.answer.goTo(Math.floor((event.clientX - box.left) / box.width * this.answer.tokens.length));
    });
    return { element: el('div', { class: 'trace-row' }, label, picture, most), bars, picture, most, label };
  }

  #fill(name, column) {
    const row = this.rows.get(name);
    const values = this.answer.tokens.map((_, i) => this.answer.scoresOf(i)?.[column] ?? null);
    const largest = Math.max(0, ...values.filter(v => v !== null));
    const top = Math.max(this.page.watchMost(name) ?? 0, largest);
    const said = this.page.watchName(name);
    row.picture.setAttribute('viewBox', `0 0 ${Math.max(values.length, 24)} ${HEIGHT}`);
    row.bars.setAttribute('d', values.map((v, i) => (v > 0 && top > 0 ? `M${i + 0.1} ${HEIGHT}h.8v${-(Math.max(1, v / top * (HEIGHT - 1))).toFixed(2)}h-.8z` : '')).join(''));
    row.picture.setAttribute('aria-label', `${said}: largest ${number(largest)} in ${values.length} tokens`);
    row.label.textContent = said;
    row.label.title = `Colour the text by ${said}`;
    row.label.setAttribute('aria-pressed', String(this.page.coloured === name));
    row.most.textContent = largest > 0 ? `max ${number(largest)}` : 'silent';
  }
}
