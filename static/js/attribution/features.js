// Features of an SAE by what they do to the metric: ranked by the effect of steering with them, or by what they did here.
import { el } from '../experiments/dom.js';
import { button, exportButtons } from '../plots.js';
import { signed } from './words.js';

const MOST_CHOSEN = 8;

export function drawFeatures({ root, sub, tools }, page) {
  return new Features(root, sub, tools, page).draw();
}

class Features {
  constructor(root, sub, tools, page) {
    const found = page.data.found.attribute_features;
    Object.assign(this, { root, page, found, by: 'output', chosen: new Set(), labels: page.data.labels ?? {} });
    const signs = `features ${signed(found.total - found.error.effect)}, what the SAE misses ${signed(found.error.effect)}`;
    sub.textContent = `${found.source} at ${found.hook}: ${signs} of ${signed(page.gap)} to be explained`;
    this.side = found.corrupted ?? found.clean;
    const pick = name => button(name === 'output' ? 'Output effect' : 'Effect here', name === 'output' ? 'Rank by what steering with it does' : 'Rank by what it did in these prompts', () => { this.by = name; this.draw(); });
    this.tabs = { output: pick('output'), features: pick('features') };
    tools.replaceChildren(...Object.values(this.tabs), ...exportButtons({ title: 'features', file: () => `features-${this.by}`, rows: () => this.exported() }));
  }

  exported() {
    const names = this.by === 'output' ? ['index', 'effect', 'per_unit', 'unit'] : ['index', 'effect', 'position', 'clean', 'corrupted', 'per_unit'];
    return [names, ...this.found[this.by].map(row => names.map(name => row[name]))];
  }

  draw() {
    for (const [name, tab] of Object.entries(this.tabs)) tab.setAttribute('aria-pressed', String(name === this.by));
    const output = this.by === 'output';
    const columns = output ? ['Feature', 'Effect of one unit', 'Per raw unit', 'Unit'] : ['Feature', 'Effect here', 'Largest at', 'Clean', 'Corrupted'];
    const head = el('tr', {}, el('th', {}, el('span', { class: 'visually-hidden' }, 'Choose')), ...columns.map((name, i) => el('th', { scope: 'col', class: i && name !== 'Largest at' ? 'num' : '' }, name)));
    const rows = this.found[this.by].map(row => this.row(row, output));
    const says = output ? 'What steering with a feature at every token would do to the metric, whether it fires here or not.' : 'What a feature that fires here does to the metric, summed over tokens.';
    const table = el('div', { class: 'table-wrap tall', tabindex: 0, role: 'region', 'aria-label': 'Features' }, el('table', { class: 'table' }, el('thead', {}, head), el('tbody', {}, ...rows)));
    this.bar = el('div', { class: 'cluster feature-bar' });
    this.root.replaceChildren(el('p', { class: 'small muted' }, says), table, this.bar, ...(this.found.notes ?? []).map(note => el('p', { class: 'small muted' }, note)));
    this.offer();
    return null;
  }

  row(row, output) {
    const tick = el('input', { type: 'checkbox', 'aria-label': `Choose feature ${row.index}`, onchange: () => this.tick(row.index, tick) });
    tick.checked = this.chosen.has(row.index);
    const label = this.labels[row.index];
    const name = el('td', {}, this.page.data.feature_url ? el('a', { href: this.page.data.feature_url.replace('/0/', `/${row.index}/`) }, String(row.index)) : String(row.index), label ? el('span', { class: 'muted' }, ` ${label}`) : '');
    const number = (value, digits = 3) => el('td', { class: 'num' }, el('span', { class: value > 0 ? 'pos' : value < 0 ? 'neg' : '' }, signed(value, digits)));
    const plainly = value => el('td', { class: 'num' }, value === null || value === undefined ? '–' : value.toFixed(2));
    if (output) return el('tr', {}, el('td', {}, tick), name, number(row.effect), number(row.per_unit, 4), plainly(row.unit));
    const token = el('code', { class: 'tok' }, this.page.found.corrupted.tokens[row.position] && this.found.corrupted ? this.page.tokenAt(row.position) : this.side.tokens[row.position][1]);
    const made = el('tr', {}, el('td', {}, tick), name, number(row.effect), el('td', {}, token, el('span', { class: 'faint small' }, ` ${row.position}`)), plainly(row.clean), plainly(row.corrupted));
    if (this.found.corrupted) {
      made.addEventListener('mouseenter', () => this.page.point({ position: row.position }));
      made.addEventListener('mouseleave', () => this.page.point(null));
    }
    return made;
  }

  tick(index, box) {
    if (box.checked && this.chosen.size >= MOST_CHOSEN) {
      box.checked = false;
      return this.offer(`A lane takes ${MOST_CHOSEN} features from here. Leave one out first.`);
    }
    if (box.checked) this.chosen.add(index);
    else this.chosen.delete(index);
    this.offer();
  }

  /** What pushes the metric up when steered with is added, what pushes it down is turned round. */
  signOf(index) {
    const row = this.found.output.find(one => one.index === index) ?? this.found.features.find(one => one.index === index);
    return row.per_unit < 0 ? 'against' : 'feature';
  }

  /** The way to the playground: a link that names the chosen features, with the sign that makes the metric grow. */
  offer(problem = '') {
    const open = this.root.dataset.steer;
    if (!open) return;
    const n = this.chosen.size, prompt = this.page.data.question.corrupted;
    const link = el('a', { class: `btn${n ? ' btn-primary' : ''}`, 'aria-disabled': String(!n), role: 'link' }, n ? `Steer with ${n === 1 ? 'this' : `these ${n}`}` : 'Steer with these');
    if (n) link.href = `${open}?${[...this.chosen].map(index => `${this.signOf(index)}=${encodeURIComponent(`${this.found.source}/${index}`)}`).join('&')}${prompt.length < 1500 ? `&prompt=${encodeURIComponent(prompt)}` : ''}`;
    this.bar.replaceChildren(link, el('span', { class: 'small muted', role: 'status' }, problem || (n ? 'Opens the playground with them in a lane, so that the metric grows.' : 'Choose features in the table.')));
  }
}
