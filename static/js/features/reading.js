// A text that was read: tokens on the left, features on the right. Any feature colours the tokens; any tokens sort them.
import { el, icon } from '../playground/dom.js';
import { toast } from '../base.js';
import { ask, inline, legend, level, number, shown } from './tokens.js';

const root = document.getElementById('reading');
const $ = name => document.querySelector(`[data-${name}]`);
const AT_ONCE = 400; // tokens that are put on the page in one frame

class Reading {
  spans = [];
  chosen = new Set();
  at = -1;
  feature = null;
  list = 'overall';
  sorted = null;
  exact = new Map(); // feature -> value at every token, from the server
  asked = 0;

  constructor(data) {
    Object.assign(this, data);
    this.out = new Set(data.left_out ?? []);
    this.byToken = data.top.map(row => new Map(row));
    this.full = data.top.map(row => row.length >= data.limit); // more may be on than are listed
    for (const [index, values] of Object.entries(data.values ?? {})) this.exact.set(Number(index), values);
    this.#headline();
    this.#tokens().then(() => {
      root.setAttribute('aria-busy', 'false');
      if (this.overall.length) this.colour(this.overall[0][0], { exactly: false });
      else $('coloured').textContent = 'No feature fires on this text';
      this.#draw();
    });
    this.#listen();
  }

  // ---- drawing ----

  #headline() {
    const fact = (name, value, why) => el('div', {}, el('dt', {}, name), el('dd', {}, value), el('dd', { class: 'why' }, why));
    const counted = this.tokens.length - this.out.size;
    $('headline').replaceChildren(
      fact('Tokens', number(this.tokens.length, 0), this.out.size ? `${this.out.size} special or sinks, left out of the figures` : 'all counted'),
      fact('Features on', number(this.l0, 1), `per token on average, over ${number(counted, 0)} tokens`),
      fact('Explained variance', this.explained_variance == null ? '–' : `${number(this.explained_variance * 100, 1)} %`, 'of these tokens, by the autoencoder'));
  }

  async #tokens() {
    const box = $('tokens');
    box.replaceChildren();
    for (let from = 0; from < this.tokens.length; from += AT_ONCE) {
      const part = document.createDocumentFragment();
      for (let i = from; i < Math.min(this.tokens.length, from + AT_ONCE); i += 1) part.append(this.#span(i));
      box.append(part);
      if (from + AT_ONCE < this.tokens.length) await new Promise(requestAnimationFrame);
    }
  }

  #span(i) {
    const span = el('span', { class: `tk${this.out.has(i) ? ' left-out' : ''}`, role: 'button', 'aria-pressed': 'false', 'data-i': i, tabindex: i === 0 ? '0' : '-1' });
    span.textContent = shown(this.tokens[i][1]);
    this.spans.push(span);
    return span;
  }

  /** What is known of a feature at a token: null where only the server knows. */
  value(feature, i) {
    const exact = this.exact.get(feature);
    if (exact) return exact[i];
    const known = this.byToken[i].get(feature);
    if (known !== undefined) return known;
    return this.full[i] ? null : 0;
  }

  /** Colour the text by a feature: at once by what is here, exactly when the server has said the rest. */
  async colour(feature, { exactly = true } = {}) {
    this.feature = feature;
    const values = this.#paint();
    this.#draw();
    if (!exactly || !values.includes(null)) return;
    const asked = ++this.asked;
    try {
      await this.#more({ features: [feature] });
      if (asked === this.asked && this.feature === feature) { this.#paint(); this.#draw(); }
    } catch (error) {
      if (asked === this.asked) toast(`Feature ${feature} is shown in part`, error.message);
    }
  }

  #paint() {
    const values = this.tokens.map((_, i) => this.value(this.feature, i));
    const most = Math.max(0, ...values.filter((v, i) => v !== null && !this.out.has(i)));
    this.spans.forEach((span, i) => {
      const step = this.out.has(i) ? 0 : level(values[i], most);
      for (const name of [...span.classList]) if (/^f\d$/.test(name)) span.classList.remove(name);
      if (step) span.classList.add(`f${step}`);
      span.title = values[i] ? `${inline(this.tokens[i][1])}: ${number(values[i], 3)}` : '';
    });
    const fired = values.filter((v, i) => v > 0 && !this.out.has(i)).length;
    const waits = values.includes(null);
    $('coloured').replaceChildren('Coloured by ', el('a', { href: this.#address(this.feature) }, this.name(this.feature)), waits ? `: in part, where it is among the ${this.limit} strongest` : most > 0 ? `: fires on ${fired} token${fired === 1 ? '' : 's'}` : ': does not fire here');
    if (most > 0) legend($('legend'), most);
    else $('legend').hidden = true;
    return values;
  }

  name(feature) {
    const label = this.labels[feature];
    return label ? `${feature} · ${label.text}` : `feature ${feature}`;
  }

  #address(feature) { return `/features/${encodeURIComponent(this.source)}/${feature}/`; }

  // ---- the list ----

  #rows() {
    if (this.list === 'sorted') return this.sorted ?? [];
    if (this.list === 'token') return (this.top[this.at] ?? []).map(([index, value]) => [index, value, this.at]);
    return this.overall;
  }

  #draw() {
    const rows = this.#rows();
    const most = Math.max(0, ...rows.map(([, value]) => value));
    $('list').replaceChildren(...rows.map(row => this.#row(row, most)));
    $('note').textContent = this.#note(rows);
    $('note').hidden = !$('note').textContent;
    for (const radio of document.querySelectorAll('input[name=list]')) {
      radio.checked = radio.value === this.list;
      if (radio.value === 'sorted') radio.disabled = this.sorted === null;
    }
  }

  #note(rows) {
    if (this.list === 'token') return this.at < 0 ? 'Point at a token, or move to one with the arrow keys.' : `Token ${this.at + 1}, “${inline(this.tokens[this.at][1])}”${rows.length ? '' : ': no feature fires here'}${this.out.has(this.at) ? '; special or a sink, and left out of the figures' : ''}`;
    if (this.list === 'sorted') return `By their sum over ${this.sortedBy} chosen token${this.sortedBy === 1 ? '' : 's'}`;
    return rows.length ? 'By their largest activation' : 'No feature fires on this text.';
  }

  #row([index, value, where], most) {
    const label = this.labels[index];
    const words = label ? [el('span', { class: 'fl-text' }, label.text), label.proposed ? el('span', { class: 'tag tag-warn' }, 'proposed') : null] : [el('span', { class: 'faint' }, 'no label')];
    const bar = el('progress', { class: 'fl-bar', max: most || 1, value, 'aria-hidden': 'true' });
    const seen = this.tokens[where] && this.list === 'overall' ? el('span', { class: 'tok' }, inline(this.tokens[where][1])) : null;
    return el('li', {},
      el('button', { type: 'button', 'aria-pressed': String(index === this.feature), title: `Colour the text by feature ${index}`, onclick: () => this.colour(index) },
        el('span', { class: 'fl-head' }, el('b', { class: 'num' }, String(index)), ...words), el('span', { class: 'fl-foot' }, bar, el('span', { class: 'num' }, number(value, 2)), seen)),
      el('a', { class: 'btn btn-ghost btn-icon btn-sm', href: this.#address(index), 'aria-label': `Open feature ${index}`, title: 'Open its page' }, icon('right')));
  }

  // ---- acting ----

  #listen() {
    const box = $('tokens');
    box.addEventListener('mouseover', event => this.#point(event.target));
    box.addEventListener('focusin', event => this.#point(event.target));
    box.addEventListener('click', event => this.#choose(event.target));
    box.addEventListener('keydown', event => this.#key(event));
    for (const radio of document.querySelectorAll('input[name=list]')) radio.addEventListener('change', () => { this.list = radio.value; this.#draw(); });
    $('sort').addEventListener('click', () => this.#sort());
    $('clear').addEventListener('click', () => this.#clear());
    $('number').addEventListener('submit', event => {
      event.preventDefault();
      const text = document.getElementById('by-number').value.trim().replace(/^#/, '');
      if (/^\d{1,9}$/.test(text)) this.colour(Number(text));
    });
  }

  #index(target) { return Number((target instanceof Element ? target.closest('.tk') : null)?.dataset.i ?? -1); }

  #point(target) {
    const i = this.#index(target);
    if (i < 0 || i === this.at) return;
    this.at = i;
    if (this.list === 'token') this.#draw();
  }

  #choose(target) {
    const i = this.#index(target);
    if (i < 0) return;
    if (this.chosen.has(i)) this.chosen.delete(i);
    else this.chosen.add(i);
    this.spans[i].setAttribute('aria-pressed', String(this.chosen.has(i)));
    this.#focus(i);
    this.#bar();
  }

  #key(event) {
    const at = this.#index(event.target);
    if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); return this.#choose(event.target); }
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: this.spans.length - 1, ArrowDown: this.#line(at, 1), ArrowUp: this.#line(at, -1) }[event.key];
    if (to === undefined || !this.spans[to]) return;
    event.preventDefault();
    this.#focus(to);
  }

  /** The token above or below, as the lines lie on the page. */
  #line(at, way) {
    const { left, top } = this.spans[at].getBoundingClientRect();
    let best = at, line = null, near = Infinity;
    for (let i = at + way; this.spans[i]; i += way) {
      const box = this.spans[i].getBoundingClientRect();
      if (Math.abs(box.top - top) < 4) continue;
      line ??= box.top;
      if (Math.abs(box.top - line) >= 4) break;
      if (Math.abs(box.left - left) < near) { near = Math.abs(box.left - left); best = i; }
    }
    return best;
  }

  #focus(i) {
    $('tokens').querySelector('.tk[tabindex="0"]')?.setAttribute('tabindex', '-1');
    this.spans[i].setAttribute('tabindex', '0');
    this.spans[i].focus();
  }

  #bar() {
    const n = this.chosen.size;
    $('chosen').textContent = n ? `${n} token${n === 1 ? '' : 's'} chosen` : 'No token chosen. Click tokens, or press Space on them, to sort features by them.';
    $('sort').disabled = $('clear').disabled = !n;
  }

  #clear() {
    for (const i of this.chosen) this.spans[i].setAttribute('aria-pressed', 'false');
    this.chosen.clear();
    this.#bar();
    this.list = 'overall';
    this.#draw();
  }

  async #sort() {
    const places = [...this.chosen].sort((a, b) => a - b);
    $('sort').disabled = true;
    $('voice').textContent = 'Sorting';
    try {
      const { sorted } = await this.#more({ sort_by: places });
      Object.assign(this, { sorted, sortedBy: places.length, list: 'sorted' });
      this.#draw();
      $('voice').textContent = `${sorted.length} features, sorted by ${places.length} chosen tokens.`;
    } catch (error) {
      toast('The features were not sorted', error.message);
    } finally {
      this.#bar();
    }
  }

  async #more(what) {
    const found = await ask(root.dataset.more, what);
    Object.assign(this.labels, found.labels);
    for (const [index, values] of Object.entries(found.values)) this.exact.set(Number(index), values);
    return found;
  }
}

try {
  new Reading(await ask(root.dataset.url));
} catch (error) {
  $('tokens').replaceChildren(el('div', { class: 'error-panel', role: 'alert' }, icon('warn'), el('div', {}, el('h3', {}, 'The reading could not be shown'), el('p', {}, error.message))));
  root.setAttribute('aria-busy', 'false');
}
