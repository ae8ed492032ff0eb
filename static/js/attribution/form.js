// The page that asks: reads the tokens of both prompts while they are written, and holds the pairs that a person mended.
import { csrfToken, icon } from '../base.js';
import { el } from '../experiments/dom.js';
import { Alignment, summary } from './alignment.js';
import { visible } from './words.js';

const PAUSE_MS = 400;
const form = document.querySelector('.question-form');
const field = name => form.elements[name];
const at = name => form.querySelector(`[data-${name}]`);
const lines = name => field(name).value.split('\n').filter(line => line);
const metric = () => field('metric').value;

let kept = field('alignment').value; // of a question that came filled in: counts until the prompts change
let found = null, asked = 0, timer;

const editor = new Alignment(at('alignment'), (pairs, problem) => {
  at('problem').hidden = !problem;
  at('problem').textContent = problem;
  if (problem) return;
  field('alignment').value = JSON.stringify(pairs);
  say(pairs, 'by hand');
});

function say(pairs, how) {
  at('summary').textContent = `${summary(found.clean.length, found.corrupted.length, pairs)} Paired ${how}.`;
  at('reset').hidden = how !== 'by hand';
}

const HOW = { place: 'place by place', difference: 'by what they have in common', nothing: 'as far as that is clear: mend the rest by hand' };

function draw(answer) {
  at('problem').hidden = !answer.problem;
  at('problem').textContent = answer.problem ?? '';
  drawTargets(answer.targets ?? []);
  found = answer.problem ? null : answer;
  at('how').hidden = !found;
  if (!found) {
    at('alignment').replaceChildren();
    at('summary').textContent = 'The tokens could not be read.';
    return;
  }
  const hand = kept ? JSON.parse(kept) : null;
  const fits = hand?.every(([i, j]) => i < found.clean.length && j < found.corrupted.length);
  show(fits ? hand : null);
}

/** Pairs that a person made, else those found: they are sent where the prompts differ in length, so that what runs is what is shown. */
function show(hand) {
  const pairs = hand ?? found.pairs;
  field('alignment').value = hand || found.by !== 'place' ? JSON.stringify(pairs) : '';
  editor.show({ clean: found.clean, corrupted: found.corrupted, pairs });
  say(pairs, hand ? 'by hand' : HOW[found.by]);
}

function drawTargets(counted) {
  const wrong = counted.filter(target => target.tokens !== 1);
  at('targets').replaceChildren(...wrong.map(({ text, tokens }) => el('li', { class: 'is-warn' }, icon('warn'), el('span', {}, el('code', { class: 'tok' }, visible(text)), ` is ${tokens} tokens. Name one that is a single token`, text.startsWith(' ') ? '.' : `, perhaps with a space before it.`))));
}

async function read() {
  const texts = { clean: field('clean_prompt').value, corrupted: field('corrupted_prompt').value };
  if (!texts.clean || !texts.corrupted) return;
  const number = ++asked;
  if (!found) at('summary').textContent = 'Reading the tokens …';
  const targets = metric() === 'kl' ? [] : [...lines('targets'), ...(metric() === 'logit_difference' ? lines('against') : [])];
  try {
    const response = await fetch(form.dataset.tokens, {
      method: 'POST', headers: { 'X-CSRFToken': csrfToken(), 'Content-Type': 'application/json', Accept: 'application/json' },
      body: JSON.stringify({ ...texts, chat: field('chat').checked, targets }),
    });
    if (!response.ok) throw new Error(String(response.status));
    const answer = await response.json();
    if (number !== asked) return;
    draw(answer);
    if (answer.again) timer = setTimeout(read, answer.again * 1000);
  } catch {
    if (number === asked) draw({ problem: 'The server did not answer. Change a prompt to try again, or begin: the model pairs the tokens then.' });
  }
}

function later({ target }) {
  if (['clean_prompt', 'corrupted_prompt', 'chat'].includes(target.name)) {
    kept = '';
    field('alignment').value = '';
  } else if (!['targets', 'against', 'metric'].includes(target.name)) return;
  clearTimeout(timer);
  timer = setTimeout(read, PAUSE_MS);
}

form.addEventListener('input', later);
at('reset').addEventListener('click', () => {
  kept = '';
  show(null);
});
read();
