// The page of one experiment: follows it while it runs, draws what is known, and keeps what is chosen in the address.
import { duration } from '../jobs.js';
import '../copy.js';
import { el } from './dom.js';
import { drawEvaluation } from './evaluation.js';
import { drawGrid } from './grid.js';
import { Texts } from './texts.js';

const POLL_MS = 1000;
const POLL_HIDDEN_MS = 5000;
const ACTIVE = ['queued', 'running'];
const $ = selector => document.querySelector(selector);

class Page {
  constructor(root, data) {
    this.root = root;
    Object.assign(this, data);
    const asked = new URLSearchParams(location.search);
    this.chosen = asked.get('cell') ?? '';
    this.measure = asked.get('measure') ?? 'behaviour';
    this.figures = el('div', { class: 'stack experiment' });
    this.texts = new Texts(this, root.dataset.texts);
    root.append(this.figures, this.texts.root);
    document.addEventListener('steerboard:theme', () => this.draw());
    this.draw();
    if (this.active) this.poll();
  }

  get active() {
    return ACTIVE.includes(this.status.state);
  }

  get findings() {
    return this.status.findings;
  }

  /** Every condition that has texts, by its group. */
  get conditions() {
    const { cells = [], base, steered, prompting, tuning_base: tuned } = this.findings;
    return [...cells, ...[base, steered, prompting, tuned].filter(Boolean)];
  }

  async poll() {
    let wait = document.hidden ? POLL_HIDDEN_MS : POLL_MS;
    try {
      const response = await fetch(this.root.dataset.status, { headers: { Accept: 'application/json' } });
      if (!response.ok || response.redirected) throw new Error(String(response.status));
      const before = JSON.stringify(this.findings);
      this.status = await response.json();
      this.drawProgress();
      if (!this.active) return location.reload(); // the ending has its own words, which the server writes
      if (JSON.stringify(this.findings) !== before) this.draw();
    } catch {
      $('[data-eta]').textContent = 'no connection, trying again';
      wait = POLL_HIDDEN_MS;
    }
    setTimeout(() => this.poll(), wait);
  }

  drawProgress() {
    const { done, total, rate, eta_seconds: eta, note } = this.status;
    $('[data-count]').textContent = `${done} of ${total} points`;
    const bar = $('[data-progress] progress');
    bar.max = total || 1;
    bar.value = done;
    $('[data-eta]').textContent = note && eta === null ? note : eta === null ? 'beginning' : `about ${duration(eta)} left`;
    $('[data-rate]').textContent = rate ? `${rate.toFixed(1)} points/s · ` : '';
    const cancel = $('[data-cancel]');
    if (cancel) cancel.textContent = `Cancel, keep ${done}`;
  }

  choose(group) {
    this.chosen = group;
    this.remember();
    this.draw();
    this.texts.root.scrollIntoView({ block: 'nearest' });
  }

  setMeasure(measure) {
    this.measure = measure;
    this.remember();
    this.draw();
  }

  remember() {
    const url = new URL(location.href);
    if (this.chosen) url.searchParams.set('cell', this.chosen);
    url.searchParams.set('measure', this.measure);
    history.replaceState(null, '', url);
  }

  draw() {
    if (!this.findings.base && !this.findings.cells?.length && !this.findings.tuning_base) {
      this.figures.replaceChildren(this.active ? el('p', { class: 'muted' }, 'The first answers are being written. They are drawn here as they come.') : '');
      return;
    }
    const focused = document.activeElement?.dataset?.group;
    if (this.recipe === 'evaluate') drawEvaluation(this);
    else drawGrid(this);
    if (focused) this.figures.querySelector(`[data-group="${CSS.escape(focused)}"]`)?.focus();
    this.texts.show(this.conditions.find(cell => cell.group === this.chosen) ?? this.favourite());
  }

  /** The cell to show while nobody has chosen one. */
  favourite() {
    const { cells = [], best, steered } = this.findings;
    return steered ?? cells.find(cell => cell.group === best) ?? cells[0] ?? this.findings.base;
  }

  /** What a condition is called. */
  nameOf(cell) {
    if (cell.layer === undefined) return { base: 'base', 'tuning-base': 'base, tuning prompts', prompting: 'prompting', steered: 'steered' }[cell.group] ?? cell.group;
    const vector = this.vectors.length > 1 ? ` · ${this.vectors[cell.vector]}` : '';
    const operation = cell.operation === 'add' ? '' : ` · ${cell.operation}`;
    return `L${cell.layer} · ${cell.strength}×${operation}${vector}`;
  }

  file(what) {
    return `${this.name.toLowerCase().replace(/[^a-z0-9]+/g, '-')}-${what}`;
  }
}

const root = document.getElementById('experiment');
new Page(root, JSON.parse(document.getElementById('experiment-data').textContent));
