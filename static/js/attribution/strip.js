// The tokens of both prompts in pairs, in one line of columns: pointed at and chosen together with the maps.
import { el } from '../experiments/dom.js';
import { columns } from './alignment.js';
import { visible } from './words.js';

export class Strip {
  constructor(root, page) {
    this.page = page;
    const { clean, corrupted, alignment } = page.found;
    this.columns = new Map();
    const list = el('ol', { class: 'alignment', 'aria-label': 'Tokens in pairs: arrow keys move, Enter follows one through the maps' });
    let first = true;
    for (const pair of columns(clean.tokens.length, corrupted.tokens.length, alignment)) {
      list.append(this.column(pair, first && pair.corrupted !== null));
      if (pair.corrupted !== null) first = false;
    }
    list.addEventListener('keydown', event => this.key(event));
    list.addEventListener('mouseleave', () => page.point(null));
    root.replaceChildren(list);
  }

  column({ clean: i, corrupted: j }, first) {
    const { clean, corrupted } = this.page.found;
    const alone = i === null || j === null;
    const state = alone ? 'alone' : clean.tokens[i][0] === corrupted.tokens[j][0] ? 'same' : 'differs';
    const upper = i === null ? el('span', { class: 'gap' }, '·') : el('span', { class: 'tok' }, visible(clean.tokens[i][1]));
    const item = el('li', { class: `pair is-${state}` }, el('span', { class: 'place' }, j === null ? '' : String(j)), upper);
    if (j === null) {
      item.append(el('span', { class: 'gap' }, '·'));
      return item;
    }
    item.append(el('button', {
      type: 'button', class: 'tok', tabindex: first ? 0 : -1, 'data-position': j, 'aria-pressed': 'false', 'aria-label': `Token ${j}: ${this.page.tokenAt(j)}`,
      onclick: () => this.page.choose({ position: j }), onfocus: () => this.page.point({ position: j }), onblur: () => this.page.point(null),
    }, visible(corrupted.tokens[j][1])));
    item.addEventListener('mouseenter', () => this.page.point({ position: j }));
    this.columns.set(j, item);
    return item;
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const here = event.target.dataset?.position;
    if (!step || here === undefined) return;
    const next = this.columns.get(Number(here) + step)?.querySelector('button');
    if (!next) return;
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
    event.preventDefault();
  }

  point(place) { this.mark('is-lit', place?.position); }

  choose(place) {
    this.mark('is-picked', place?.position);
    for (const [position, item] of this.columns) item.querySelector('button').setAttribute('aria-pressed', String(position === place?.position));
  }

  mark(name, position) {
    for (const [at, item] of this.columns) item.classList.toggle(name, at === position);
  }
}
