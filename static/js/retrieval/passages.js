// The passages as cards, in the order in which they stood in the prompt. The token that is shown lights up those it rests on.
import { el, svg } from '../experiments/dom.js';
import { signed } from '../attribution/words.js';

const HIGH = 30;

export class Passages {
  constructor(root, page) {
    this.page = page;
    const { found } = page;
    this.edges = found.passages.map(() => el('div', { class: 'rest-edge' }));
    this.cards = found.passages.map((passage, span) => el('li', { class: 'rest-passage' },
      el('header', {}, el('b', {}, page.nameOf(span)), el('span', { class: 'muted' }, page.titleOf(span)), passage.label ? el('span', { class: 'tag tag-ok' }, 'holds the answer') : null,
        el('span', { class: 'num faint', title: 'Sum over the answer of what is lost without it' }, `${signed(found.sums.spans[span], 1)} nats`)),
      el('p', {}, passage.text), this.edges[span]));
    root.append(...this.cards);
    page.follow(token => this.show(token));
  }

  show(token) {
    const mine = token === null ? [] : this.page.edges[token];
    this.cards.forEach((card, span) => {
      const edge = mine.find(one => one.span === span);
      card.classList.toggle('on', Boolean(edge));
      card.classList.toggle('off', token !== null && !edge);
      this.edges[span].replaceChildren(...(edge ? told(edge) : []));
    });
  }
}

function told(edge) {
  const most = Math.max(...edge.layers.map(Math.abs), 1e-9);
  const wide = 100 / edge.layers.length;
  const bars = edge.layers.map((value, layer) => {
    const high = Math.max(0.5, (Math.abs(value) / most) * (HIGH / 2));
    return svg('rect', { class: layer === edge.best_layer ? 'best' : value < 0 ? 'neg' : '', x: layer * wide + 0.1 * wide, width: 0.8 * wide, y: value < 0 ? HIGH / 2 : HIGH / 2 - high, height: high });
  });
  const drawing = svg('svg', { viewBox: `0 0 100 ${HIGH}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': `What each of ${edge.layers.length} layers reads of it; most in layer ${edge.best_layer}` }, ...bars);
  return [el('span', {}, `${signed(edge.drop, 2)} nats measured, ${signed(edge.predicted, 2)} foretold; layer ${edge.best_layer} of ${edge.layers.length} reads most`), drawing];
}
