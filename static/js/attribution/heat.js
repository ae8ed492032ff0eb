// A heat map by Plotly that mouse, touch and arrow keys walk, linked to others by what it is told and tells.
// Labels come from prompts: they pass through `plain`. The page loads vendor/plotly before this.
import { el, svg } from '../experiments/dom.js';
import { button, colours, CONFIG, exportButtons } from '../plots.js';
import { plain, short, signed } from './words.js';

const ROW = 13, LEAST = 220, MOST = 620;
const LABELS = 44; // columns that can have a label each
const NUMBERED = 12; // columns that leave room for a number in each cell
const WHOLE_TABLE = 48; // columns that a table can have; above that it lists the strongest cells
const STRONGEST = 300;
const CROWDED = 100; // columns from which on a map scrolls sideways instead of thinning out
const NARROWEST = 8; // pixels of a column then
const STEPS = ['neg-4', 'neg-3', 'neg-2', 'neg-1', 'surface-1', 'pos-1', 'pos-2', 'pos-3', 'pos-4'];

const token = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/**
 * { title, note, file, z: [rows][columns], rows: names, columns: names, rowName, columnName, digits,
 *   says(row, column, value), hover(row, column) or hover(null), pick(row, column) }
 */
export class Heat {
  constructor(map) {
    Object.assign(this, map);
    this.at = null;
    this.top = Math.max(1e-12, ...this.z.map(row => row.reduce((most, value) => Math.max(most, Math.abs(value ?? 0)), 0)));
    this.plot = el('div', { class: 'figure-plot heat-plot' });
    this.field = el('div', {
      class: 'heat-field', tabindex: 0, role: 'application', 'aria-roledescription': 'heat map', 'aria-label': this.label(),
      onkeydown: event => this.key(event), onfocus: () => !this.at && this.move(this.strongest()), onmouseleave: () => this.hover(null),
    }, this.plot);
    this.table = el('div', { class: 'table-wrap figure-table', tabindex: 0, role: 'region', 'aria-label': `${this.title} as a table`, hidden: true });
    this.turned = this.columns.some(name => String(name).length > 2);
    this.scale = el('span', { class: 'heat-key' });
    this.root = el('figure', { class: 'figure heat' }, this.head(), this.field, this.table);
    this.drawKey();
  }

  /** What the colours mean: the size of the strongest cell at both ends. */
  drawKey() {
    const steps = STEPS.map((name, i) => svg('rect', { class: `step-${name}`, x: i * 10, width: 10, height: 10 }));
    const most = this.top < 1e-9 ? '0' : Number(this.top.toPrecision(2));
    this.scale.replaceChildren(`−${most}`, svg('svg', { viewBox: '0 0 90 10', class: 'heat-steps', 'aria-hidden': 'true' }, ...steps), `+${most}`);
  }

  label() {
    const [row, column] = this.strongest();
    return `${this.title} by ${this.rowName} and ${this.columnName}. Strongest: ${this.says(row, column, this.z[row]?.[column])}. Arrow keys move, Enter selects.`;
  }

  head() {
    this.toggle = button('Table', `Show ${this.title} as a table`, () => this.showTable(this.table.hidden));
    this.toggle.setAttribute('aria-pressed', 'false');
    const exports = exportButtons({ title: this.title, file: this.file, plot: this.plot, rows: () => this.cells() });
    const name = el('h3', {}, this.title, el('span', { class: 'sub' }, this.note ?? ''), this.scale);
    return el('figcaption', { class: 'figure-head' }, name, el('span', { class: 'grow' }), this.toggle, ...exports);
  }

  strongest() {
    let best = [0, 0], most = -1;
    this.z.forEach((row, y) => row.forEach((value, x) => {
      if (Math.abs(value ?? 0) > most) [best, most] = [[y, x], Math.abs(value ?? 0)];
    }));
    return best;
  }

  cells() {
    const rows = this.z.flatMap((row, y) => row.map((value, x) => [this.rows[y], x, this.columns[x], value]));
    return [[this.rowName, `${this.columnName} number`, this.columnName, 'effect'], ...rows];
  }

  showTable(show) {
    if (show && !this.table.firstChild) this.table.append(this.asTable());
    this.table.hidden = !show;
    this.field.hidden = show;
    this.toggle.setAttribute('aria-pressed', String(show));
    if (!show) this.draw();
  }

  asTable() {
    if (this.columns.length > WHOLE_TABLE) return this.asList();
    const head = el('tr', {}, el('th', { scope: 'col' }, this.rowName), ...this.columns.map((name, x) => el('th', { scope: 'col', class: 'num' }, short(`${x} ${name}`, 16))));
    const body = this.z.map((row, y) => el('tr', {}, el('th', { scope: 'row' }, String(this.rows[y])), ...row.map(value => el('td', { class: 'num' }, signed(value, this.digits)))));
    return el('table', { class: 'table' }, el('thead', {}, head), el('tbody', {}, ...body));
  }

  /** The strongest cells of a map that is too wide for a table; the whole of it is in the CSV. */
  asList() {
    const all = this.cells().slice(1).sort((a, b) => Math.abs(b[3]) - Math.abs(a[3])).slice(0, STRONGEST);
    const head = el('tr', {}, ...[this.rowName, '#', this.columnName, 'effect'].map(name => el('th', { scope: 'col' }, name)));
    const body = all.map(([row, x, name, value]) => el('tr', {}, el('td', {}, String(row)), el('td', { class: 'num' }, String(x)), el('td', {}, name), el('td', { class: 'num' }, signed(value, this.digits))));
    return el('table', { class: 'table' }, el('caption', { class: 'small faint' }, `The ${all.length} strongest of ${this.z.length * this.columns.length} cells; the CSV has all.`), el('thead', {}, head), el('tbody', {}, ...body));
  }

  draw() {
    if (this.field.hidden || !this.plot.isConnected) return;
    const ink = colours();
    window.Plotly.react(this.plot, [this.trace(ink)], this.layout(ink), CONFIG);
    if (this.listening) return;
    this.listening = true;
    this.reveal(this.strongest()[1]);
    this.plot.on('plotly_hover', ({ points: [point] }) => this.hover(...this.placeOf(point)));
    this.plot.on('plotly_unhover', () => this.hover(null));
    this.plot.on('plotly_click', ({ points: [point] }) => {
      this.at = this.placeOf(point);
      this.pick(...this.at);
    });
  }

  placeOf(point) {
    return point.pointNumber ?? [point.y, point.x];
  }

  trace(ink) {
    const numbered = this.columns.length <= NUMBERED && this.rows.length <= 40;
    return {
      type: 'heatmap', z: this.z, zmin: -this.top, zmax: this.top, xgap: 1, ygap: 1,
      colorscale: STEPS.map((name, i) => [i / 8, token(name)]), hoverinfo: 'none', hoverongaps: false,
      showscale: false,
      ...(numbered ? { text: this.z.map(row => row.map(value => (Math.abs(value) >= this.top / 20 ? signed(value, 2) : ''))), texttemplate: '%{text}', textfont: { size: 9, color: ink.text } } : {}),
    };
  }

  layout(ink) {
    const crowded = this.columns.length >= CROWDED;
    const every = crowded ? 4 : Math.ceil(this.columns.length / LABELS);
    const ticks = this.columns.map((_, x) => x).filter(x => x % every === 0);
    const layers = this.rows.map((_, y) => y).filter(y => y % Math.ceil(this.rows.length / 16) === 0);
    const axis = { fixedrange: true, zeroline: false, showgrid: false, color: ink.faint, tickfont: { size: 10 }, ticks: '' };
    return {
      ...(crowded ? { width: 48 + this.columns.length * NARROWEST, autosize: false } : {}),
      height: Math.min(MOST, Math.max(LEAST, this.rows.length * ROW + this.foot() + 6)), margin: { l: 44, r: 4, t: 6, b: this.foot() },
      showlegend: false, dragmode: false, paper_bgcolor: 'transparent', plot_bgcolor: ink.line,
      font: { family: ink.font, size: 11, color: ink.faint }, shapes: this.marks(ink),
      xaxis: { ...axis, tickvals: ticks, ticktext: ticks.map(x => plain(short(this.columns[x], 11))), tickangle: this.turned ? -55 : 0, range: [-0.5, this.columns.length - 0.5] },
      yaxis: { ...axis, tickvals: layers, ticktext: layers.map(y => String(this.rows[y])), title: { text: this.rowName, font: { size: 11 }, standoff: 6 }, range: [-0.5, this.rows.length - 0.5] },
    };
  }

  /** Room for the names of columns, which stand askew. */
  foot() {
    return this.turned ? 20 + 5 * Math.min(11, Math.max(...this.columns.map(name => name.length))) : 30;
  }

  marks(ink) {
    const made = [];
    if (this.lit) {
      const { row, column } = this.lit;
      const line = { color: ink.muted, width: 1, dash: 'dot' };
      if (Number.isInteger(column)) made.push({ type: 'rect', x0: column - 0.5, x1: column + 0.5, yref: 'paper', y0: 0, y1: 1, line });
      if (Number.isInteger(row)) made.push({ type: 'rect', y0: row - 0.5, y1: row + 0.5, xref: 'paper', x0: 0, x1: 1, line });
    }
    if (this.at) made.push({ type: 'rect', x0: this.at[1] - 0.5, x1: this.at[1] + 0.5, y0: this.at[0] - 0.5, y1: this.at[0] + 0.5, line: { color: ink.text, width: 2 } });
    return made;
  }

  /** Show a row and a column (each may be missing) as what is looked at elsewhere, and `at`, [row, column], as chosen. */
  mark(lit, at) {
    this.lit = lit;
    if (at !== undefined) this.at = at;
    if (this.listening && !this.field.hidden) window.Plotly.relayout(this.plot, { shapes: this.marks(colours()) });
  }

  /** Scroll a crowded map so that a column can be seen. */
  reveal(column) {
    if (this.columns.length < CROWDED) return;
    const x = 44 + column * NARROWEST, { scrollLeft, clientWidth } = this.field;
    if (x < scrollLeft + 40 || x > scrollLeft + clientWidth - 40) this.field.scrollLeft = x - clientWidth / 2;
  }

  move([row, column]) {
    this.at = [Math.max(0, Math.min(this.rows.length - 1, row)), Math.max(0, Math.min(this.columns.length - 1, column))];
    this.hover(...this.at);
    this.mark(this.lit);
    this.reveal(this.at[1]);
  }

  key(event) {
    const [row, column] = this.at ?? this.strongest();
    const to = {
      ArrowUp: [row + 1, column], ArrowDown: [row - 1, column], ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
      Home: [row, 0], End: [row, this.columns.length - 1], PageUp: [row + 5, column], PageDown: [row - 5, column],
    }[event.key];
    if (to) this.move(to);
    else if (event.key === 'Enter' || event.key === ' ') this.pick(row, column);
    else return;
    event.preventDefault();
  }
}
