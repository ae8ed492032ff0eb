// One answered question: the answer's tokens, the passages that each rests on, and the links between them.
// Tokens and passages are hostile text: text nodes only, and through `plain` where Plotly draws them.
import { icon } from '../base.js';
import { el } from '../experiments/dom.js';
import { readable, signed, visible } from '../attribution/words.js';
import { drawLinks } from './links.js';
import { Passages } from './passages.js';
import { drawScatter } from './scatter.js';
import { drawTable } from './table.js';

const found = JSON.parse(document.getElementById('question-data').textContent);
const at = name => document.querySelector(`[data-${name}]`);
const nats = value => `${signed(value, 2)} nats`;

/** What all parts share. `edges[token]` are its links, largest drop first. */
const page = {
  found, chosen: null, pointed: null, followers: [],
  edges: found.answer_tokens.map((_, token) => found.edges.filter(edge => edge.token === token).sort((a, b) => b.drop - a.drop)),
  get shown() { return this.pointed ?? this.chosen; },
  strongest: Math.max(...found.drops.flat(), 1e-9),
  nameOf(span) { return `DOC ${span + 1}`; },
  titleOf(span) { const passage = found.passages[span]; return passage.title || passage.document; },
  follow(follower) { this.followers.push(follower); },
  point(token) { this.pointed = token; this.tell(); },
  choose(token) { this.chosen = token === this.chosen ? null : token; this.pointed = null; this.tell(); },
  tell() { this.followers.forEach(follower => follower(this.shown)); },
};

class Tokens {
  constructor(root) {
    this.buttons = found.answer_tokens.map(([, text], token) => {
      const most = Math.max(0, ...page.edges[token].map(edge => edge.drop));
      const step = most > 0 ? Math.min(4, 1 + Math.floor((3.999 * most) / page.strongest)) : 0;
      const says = page.edges[token].length ? page.edges[token].map(edge => `${page.nameOf(edge.span)} ${nats(edge.drop)}`).join(', ') : 'rests on no passage';
      return el('button', {
        type: 'button', class: step ? `r${step}` : '', 'aria-pressed': 'false', 'aria-label': `${visible(text)}: ${says}`, tabindex: token ? -1 : 0,
        onclick: () => page.choose(token), onpointerenter: event => event.pointerType === 'mouse' && page.point(token), onpointerleave: event => event.pointerType === 'mouse' && page.point(null),
        onfocus: event => { if (event.target.matches(':focus-visible')) page.point(token); }, onblur: () => page.point(null), onkeydown: event => this.walk(event, token),
      }, text.trim() ? text.replaceAll('\n', '⏎') : visible(text));
    });
    root.append(...this.buttons);
    page.follow(() => this.buttons.forEach((button, token) => button.setAttribute('aria-pressed', String(token === page.chosen))));
  }

  walk(event, token) {
    const next = { ArrowRight: token + 1, ArrowDown: token + 1, ArrowLeft: token - 1, ArrowUp: token - 1, Home: 0, End: this.buttons.length - 1 }[event.key];
    if (next === undefined || !this.buttons[next]) return;
    event.preventDefault();
    this.buttons[token].tabIndex = -1;
    this.buttons[next].tabIndex = 0;
    this.buttons[next].focus();
  }
}

function say(token) {
  const line = at('readout');
  if (token === null || token === undefined) {
    const best = found.edges.reduce((most, edge) => (most && most.drop >= edge.drop ? most : edge), null);
    const first = best ? `The strongest link: “${readable(found.answer_tokens[best.token][1])}” rests on ${page.nameOf(best.span)}, ${nats(best.drop)}.` : `No token loses ${found.epsilon} nats when a passage is taken out: the answer rests on none of them alone.`;
    return line.replaceChildren(el('p', {}, first), el('p', { class: 'faint' }, 'Point at a token, or press one to hold it.'));
  }
  const [, text] = found.answer_tokens[token];
  const chance = Math.exp(found.logprobs[token]);
  const links = page.edges[token].map(edge => el('p', {}, el('b', {}, page.nameOf(edge.span)), ` ${nats(edge.drop)} measured, ${nats(edge.predicted)} foretold, read most in layer ${edge.best_layer}`));
  line.replaceChildren(
    el('p', {}, el('code', { class: 'tok' }, visible(text)), ` had a chance of ${(100 * chance).toFixed(chance < 0.1 ? 1 : 0)} %; without any passage ${nats(-found.together[token])}.`),
    ...(links.length ? links : [el('p', { class: 'faint' }, `No single passage changes it by ${found.epsilon} nats.`)]),
  );
}

function headline() {
  const fact = (name, value, why) => el('div', {}, el('dt', {}, name), el('dd', {}, value, el('span', { class: 'why' }, why)));
  const r = value => (value === null ? '–' : value.toFixed(2).replace('-', '−'));
  const best = found.ranked[0];
  const linked = new Set(found.edges.map(edge => edge.token)).size;
  at('headline').replaceChildren(
    fact('Links', String(found.edges.length), `at least ${found.epsilon} nats; ${linked} of ${found.answer_tokens.length} tokens have one`),
    fact('Rests most on', page.nameOf(best.span), `${nats(best.drop)} in sum${best.label === null ? '' : best.label ? ', labelled as holding the answer' : ', not labelled'}`),
    fact('All passages together', signed(found.sums.together, 1), 'nats that the answer loses without them'),
    fact('Foretold and measured', `r ${r(found.pearson)}`, `Spearman ${r(found.spearman)}, ${found.answer_tokens.length * found.spans.length} points`),
    fact('Took', `${(found.seconds.measuring + found.seconds.estimating).toFixed(1)} s`, `${found.prompt_tokens.length} tokens of prompt, ${found.answer_tokens.length} of answer`),
  );
  at('notes').replaceChildren(...found.notes.map(note => el('p', { class: 'notice', role: 'note' }, icon('info'), el('span', {}, note))));
}

function draw() {
  headline();
  const tokens = new Tokens(at('tokens'));
  const passages = new Passages(at('passages'), page);
  page.follow(say);
  drawLinks({ root: at('rests'), drawing: at('links') }, tokens.buttons, passages.cards, page);
  drawTable({ root: at('rests'), table: at('table'), tools: at('tools') }, page);
  drawScatter(at('scatter'), page);
  page.tell();
}

if (window.Plotly) draw();
else window.addEventListener('load', draw);
