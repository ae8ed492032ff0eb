// The logit lens: the likeliest token after each layer at each position, coloured by its probability. Tokens are text nodes.
import { el } from '../experiments/dom.js';
import { button, exportButtons } from '../plots.js';
import { percent, readable, short, visible } from './words.js';

const WIDE = 24; // positions shown at once: long prompts are looked through in windows
const SHADES = 7;
const LIGHT = 4; // from this shade on, text is light

export function drawLens({ root, sub, tools }, page) {
  return new Lens(root, sub, tools, page).draw();
}

class Lens {
  constructor(root, sub, tools, page) {
    const found = page.data.found.logit_lens;
    const which = page.data.settings.logit_lens?.which ?? 'clean';
    Object.assign(this, { root, tools, page, found, which, at: null, by: 'top', start: Math.max(0, found.tokens.length - WIDE) });
    sub.textContent = `${which} prompt: what the model would say after each layer, coloured by its probability`;
    this.foot = el('div', { class: 'lens-foot', role: 'status' });
    this.grid = el('div', { class: 'table-wrap lens-wrap', onkeydown: event => this.key(event) });
    root.replaceChildren(this.grid, this.foot);
    this.tool();
  }

  tool() {
    const { tokens, targets } = this.found;
    const choices = [['top', 'likeliest token'], ...targets.map(([, text], n) => [String(n), `probability of ${visible(text)}`])];
    const select = el('select', { class: 'form-select form-select-sm', 'aria-label': 'What the cells show', onchange: () => { this.by = select.value; this.draw(); } }, ...choices.map(([value, words]) => el('option', { value }, words)));
    const move = step => { this.start = Math.max(0, Math.min(tokens.length - WIDE, this.start + step)); this.draw(); };
    this.pager = tokens.length > WIDE ? [button('Earlier', 'Earlier tokens', () => move(-WIDE)), button('Later', 'Later tokens', () => move(WIDE))] : [];
    this.tools.replaceChildren(select, ...this.pager, ...exportButtons({ title: 'the logit lens', file: 'logit-lens', rows: () => this.rows() }));
  }

  rows() {
    const { layers, tokens, top } = this.found;
    const rows = layers.flatMap((layer, y) => tokens.flatMap(([, text], x) => top[y][x].map(([id, said, p], rank) => [layer, x, text, rank, id, said, p])));
    return [['layer', 'position', 'token', 'rank', 'said id', 'said', 'probability'], ...rows];
  }

  value(y, x) {
    return this.by === 'top' ? this.found.top[y][x][0][2] : Math.exp(this.found.logprobs[Number(this.by)][y][x]);
  }

  draw() {
    const { layers, tokens } = this.found;
    const shown = tokens.slice(this.start, this.start + WIDE).map((_, n) => this.start + n);
    const head = el('tr', {}, el('th', { class: 'corner', scope: 'col' }, 'layer'), ...shown.map(x => el('th', { scope: 'col', title: visible(tokens[x][1]) }, el('span', { class: 'place' }, String(x)), short(readable(tokens[x][1]), 9))));
    const rows = layers.map((_, n) => layers.length - 1 - n).map(y => el('tr', {}, el('th', { scope: 'row' }, layers[y] < 0 ? 'emb' : String(layers[y])), ...shown.map(x => this.cell(y, x))));
    this.grid.replaceChildren(el('table', { class: 'lens', role: 'grid', 'aria-label': 'Logit lens by layer and position: arrow keys move' }, el('thead', {}, head), el('tbody', {}, ...rows)));
    const [y, x] = this.at && shown.includes(this.at[1]) ? this.at : [layers.length - 1, shown.at(-1)];
    this.find(y, x).tabIndex = 0;
    this.tell(y, x);
    if (this.pager.length) {
      this.pager[0].disabled = this.start === 0;
      this.pager[1].disabled = this.start + WIDE >= tokens.length;
    }
    return null;
  }

  cell(y, x) {
    const p = this.value(y, x);
    const shade = Math.min(SHADES - 1, Math.floor(Math.max(0, p) * SHADES));
    const text = this.by === 'top' ? short(readable(this.found.top[y][x][0][1]), 9) : percent(p);
    return el('td', { class: `q${shade}${shade >= LIGHT ? ' inv' : ''}`, tabindex: -1, 'data-y': y, 'data-x': x, onmouseenter: () => this.tell(y, x), onfocus: () => this.tell(y, x), onclick: event => event.currentTarget.focus() }, text);
  }

  find(y, x) {
    return this.grid.querySelector(`[data-y="${y}"][data-x="${x}"]`);
  }

  /** The alternatives of a cell, at the foot of the grid. */
  tell(y, x) {
    const { layers, top, tokens, targets, logprobs, ranks, entropy, kl } = this.found;
    const layer = layers[y] < 0 ? 'Embedding' : `Layer ${layers[y]}`;
    const said = top[y][x].map(([, text, p]) => el('li', {}, el('code', { class: 'tok' }, visible(text)), el('span', { class: 'num' }, percent(p))));
    const wanted = targets.map(([, text], n) => el('li', {}, el('code', { class: 'tok' }, visible(text)), el('span', { class: 'num' }, `${percent(Math.exp(logprobs[n][y][x]))}, rank ${ranks[n][y][x] + 1}`)));
    this.foot.replaceChildren(
      el('p', { class: 'small' }, el('b', {}, layer), ` after token ${x} `, el('code', { class: 'tok' }, visible(tokens[x][1])), el('span', { class: 'faint' }, ` entropy ${entropy[y][x].toFixed(2)} nats, ${kl[y][x].toFixed(2)} from the answer`)),
      el('ol', { class: 'alternatives' }, ...said, ...(wanted.length ? [el('li', { class: 'faint small' }, 'asked for')] : []), ...wanted),
    );
  }

  key(event) {
    const { y, x } = event.target.dataset ?? {};
    if (y === undefined) return;
    const [dy, dx] = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [];
    if (dy === undefined) return;
    const next = this.find(Number(y) + dy, Number(x) + dx);
    event.preventDefault();
    if (!next) return;
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    this.at = [Number(y) + dy, Number(x) + dx];
    next.focus();
  }
}
