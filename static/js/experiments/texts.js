// The texts of one condition, each beside the base's. Model output is text, never markup.
import { button, el, fixed, save } from './dom.js';
import { presetButton } from './grid.js';

export class Texts {
  constructor(page, url) {
    this.page = page;
    this.url = url;
    this.root = el('section', { class: 'panel', id: 'cells', 'aria-label': 'Completions', hidden: true });
    this.shown = '';
    this.wrongOnly = false;
  }

  async show(cell) {
    if (!cell) return;
    const mark = `${cell.group} ${cell.n}`;
    if (mark === this.shown) return;
    this.shown = mark;
    this.cell = cell;
    const url = new URL(this.url, location.href);
    url.searchParams.set('group', cell.group);
    try {
      const response = await fetch(url, { headers: { Accept: 'application/json' } });
      if (!response.ok) throw new Error(String(response.status));
      const { rows } = await response.json();
      if (this.shown !== mark) return;
      this.rows = rows;
      this.draw();
    } catch {
      this.shown = '';
    }
  }

  draw() {
    const { cell, page } = this;
    const wrong = new Set(cell.wrong);
    const rows = this.wrongOnly ? this.rows.filter(row => wrong.has(row.place)) : this.rows;
    const which = (label, only) => el('label', {}, el('input', { type: 'radio', name: 'which', checked: this.wrongOnly === only, onchange: () => { this.wrongOnly = only; this.draw(); } }), el('span', {}, label));
    const tools = [el('fieldset', { class: 'seg', 'aria-label': 'Which' }, which(`All ${this.rows.length}`, false), which(`Wrong way ${wrong.size}`, true))];
    if (page.mine && cell.layer !== undefined) tools.push(presetButton(cell, true));
    tools.push(button('JSONL', 'Download these completions as JSONL', () => save(`${page.file(cell.group)}.jsonl`, 'application/x-ndjson', this.rows.map(row => `${JSON.stringify(row)}\n`).join(''))));
    const sampling = page.settings.writing.temperature ? `temperature ${page.settings.writing.temperature}` : 'greedy';
    const title = el('h2', {}, `Completions at ${page.nameOf(cell)} `, el('span', { class: 'sub' }, `${this.rows.length} prompts, ${sampling}, ${page.settings.writing.max_tokens} tokens. Scores are base → steered.`));
    const head = el('thead', {}, el('tr', {}, ...['#', 'Prompt'].map(name => el('th', {}, name)), lane('A', 'base', 'Base'), lane('B', '1', page.nameOf(cell)), el('th', { class: 'num' }, 'Behaviour'), el('th', { class: 'num' }, 'Perplexity')));
    const body = el('tbody', {}, ...rows.map(row => line(row, wrong.has(row.place), page)));
    const none = rows.length ? null : el('p', { class: 'panel-body muted' }, 'None of them.');
    this.root.replaceChildren(el('div', { class: 'panel-head' }, title, el('div', { class: 'cluster' }, ...tools)), el('div', { class: 'table-wrap spaced' }, el('table', { class: 'table texts' }, head, body)), none ?? '');
    this.root.hidden = false;
  }
}

function lane(letter, kind, name) {
  return el('th', {}, el('span', { class: 'th-lane' }, el('span', { class: `lane-${kind} lane-key`, 'aria-hidden': 'true' }, letter), name));
}

function line(row, wrong, page) {
  const before = row.base?.behaviour;
  const change = el('td', { class: 'num', 'data-label': 'Behaviour' });
  if (typeof before === 'number') change.append(el('span', { class: 'faint' }, `${fixed(before)} → `));
  const sign = page.settings.behaviour.better === 'higher' ? 1 : -1;
  const better = sign * ((row.behaviour ?? 0) - (before ?? 0));
  change.append(el('b', { class: better > 0 ? 'pos' : better < 0 ? 'neg' : '' }, typeof row.behaviour === 'number' ? fixed(row.behaviour) : '–'));
  if (wrong) change.append(el('br'), el('span', { class: 'neg' }, 'wrong way'));
  const perplexity = typeof row.surprise === 'number' ? fixed(Math.exp(Math.min(row.surprise, 20)), 1) : '–';
  return el('tr', {},
    el('td', { class: 'mono faint' }, String(row.place + 1)), el('td', { class: 'c-prompt', 'data-label': 'Prompt' }, row.prompt),
    el('td', { class: 'c-text muted cell-text', 'data-label': 'Base' }, row.base?.text ?? '–'), el('td', { class: 'c-text cell-text', 'data-label': 'Steered' }, row.text),
    change, el('td', { class: 'num', 'data-label': 'Perplexity' }, perplexity));
}
