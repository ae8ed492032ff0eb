// Direct logit attribution: bars of what each part writes into the logit, and a map of heads.
import { el } from '../experiments/dom.js';
import { button, colours, CONFIG, exportButtons } from '../plots.js';
import { Heat } from './heat.js';
import { signed, visible } from './words.js';

const MOST = 24;
const token = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const nameOf = part => (part.kind === 'embedding' ? 'embedding' : `L${part.layer} ${part.kind}`);

export function drawDirect({ root, sub }, page) {
  const found = page.data.found.direct_logits;
  const listed = tokens => tokens.map(([, text]) => visible(text)).join(', ');
  const over = found.against.length ? ` over ${listed(found.against)}` : '';
  const which = page.data.settings.direct_logits?.which ?? 'clean';
  sub.textContent = `${which} prompt, token ${found.position} ${visible(found.tokens[found.position][1])}: logit of ${listed(found.targets)}${over} is ${signed(found.total)}, of which norm and unembedding bias ${signed(found.bias)}`;
  const parts = [...found.parts].sort((one, other) => Math.abs(other.effect) - Math.abs(one.effect));
  const bars = new Bars(parts, page);
  root.replaceChildren(bars.root);
  const drawn = [bars];
  if (found.heads.length) {
    const heads = new Heat({
      title: 'heads, direct', note: 'what each head writes into the logit', file: 'direct-heads', z: found.heads, rows: found.heads.map((_, layer) => layer), digits: 3,
      columns: found.heads[0].map((_, head) => String(head)), rowName: 'layer', columnName: 'head', says: (y, x, value) => `layer ${y}, head ${x}, ${signed(value)}`,
      hover: (y, x) => { line.textContent = y === null ? '' : `L${y}.H${x} ${signed(found.heads[y][x])}`; }, pick: (y, x) => page.choose({ site: 'z', layer: y, head: x }),
    });
    const line = el('p', { class: 'small num muted line', role: 'status' });
    heads.root.append(line);
    root.append(heads.root);
    drawn.push(heads);
  }
  for (const note of found.notes ?? []) root.append(el('p', { class: 'small muted wide' }, note));
  drawn.forEach(figure => figure.draw());
  return () => drawn.forEach(figure => figure.draw());
}

class Bars {
  constructor(parts, page) {
    Object.assign(this, { parts, shown: parts.slice(0, MOST).reverse(), page });
    this.plot = el('div', { class: 'figure-plot bars-plot', role: 'img', 'aria-label': `Direct effects, strongest first: ${parts.slice(0, 8).map(part => `${nameOf(part)} ${signed(part.effect)}`).join(', ')}. The table has all.` });
    this.table = el('div', { class: 'table-wrap figure-table', tabindex: 0, role: 'region', 'aria-label': 'Direct effects as a table', hidden: true }, this.asTable());
    const toggle = button('Table', 'Show direct effects as a table', () => {
      this.table.hidden = !this.table.hidden;
      this.plot.hidden = !this.table.hidden;
      toggle.setAttribute('aria-pressed', String(this.plot.hidden));
      this.draw();
    });
    toggle.setAttribute('aria-pressed', 'false');
    const rows = () => [['part', 'layer', 'hook', 'effect', 'removed'], ...parts.map(part => [part.kind, part.layer, part.hook, part.effect, part.removed])];
    const head = el('figcaption', { class: 'figure-head' }, el('h3', {}, 'parts', el('span', { class: 'sub' }, `the ${Math.min(MOST, parts.length)} strongest of ${parts.length}`)), el('span', { class: 'grow' }), toggle, ...exportButtons({ title: 'direct effects', file: 'direct', rows, plot: this.plot }));
    this.root = el('figure', { class: 'figure' }, head, this.plot, this.table);
  }

  asTable() {
    const head = el('tr', {}, ...['Part', 'Effect', 'When removed'].map((name, i) => el('th', { scope: 'col', class: i ? 'num' : '' }, name)));
    const body = this.parts.map(part => el('tr', {}, el('th', { scope: 'row' }, nameOf(part)), el('td', { class: 'num' }, signed(part.effect)), el('td', { class: 'num' }, signed(part.removed))));
    return el('table', { class: 'table' }, el('thead', {}, head), el('tbody', {}, ...body));
  }

  draw() {
    if (this.plot.hidden) return;
    const ink = colours();
    const effects = [0, ...this.shown.map(part => part.effect)];
    const [low, high] = [Math.min(...effects), Math.max(...effects)], room = 0.16 * (high - low || 1);
    window.Plotly.react(this.plot, [{
      type: 'bar', orientation: 'h', x: this.shown.map(part => part.effect), y: this.shown.map(nameOf), text: this.shown.map(part => signed(part.effect, 2)), textposition: 'outside', cliponaxis: false,
      textfont: { size: 10, color: ink.muted }, marker: { color: this.shown.map(part => token(part.effect < 0 ? 'neg-4' : 'pos-4')) }, hovertemplate: '%{y}: %{x:.3f}<extra></extra>',
    }], {
      height: 90 + this.shown.length * 17, margin: { l: 74, r: 34, t: 8, b: 36 }, showlegend: false, dragmode: false, bargap: 0.25, paper_bgcolor: 'transparent', plot_bgcolor: 'transparent',
      font: { family: ink.font, size: 11, color: ink.faint }, hoverlabel: { bgcolor: ink.over, bordercolor: ink.strong, font: { family: ink.font, color: ink.text } },
      xaxis: { fixedrange: true, range: [low < 0 ? low - room : 0, high > 0 ? high + room : 0], zeroline: true, zerolinecolor: ink.strong, gridcolor: ink.line, tickfont: { size: 11 }, title: { text: 'logits', font: { size: 11 }, standoff: 4 } },
      yaxis: { fixedrange: true, tickfont: { size: 10, color: ink.muted }, dtick: 1 },
    }, CONFIG);
  }
}
