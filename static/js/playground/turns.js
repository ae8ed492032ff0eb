// The turns before this one, folded to a line each; unfolded they show what every lane answered.
import { el, icon, laneClass } from './dom.js';

export function drawTurn(turn, place, lanes) {
  const answered = lanes.filter(lane => turn.answers[lane.key]);
  const n = Object.keys(turn.answers).length;
  const button = el('button', { class: 'btn btn-ghost btn-sm', type: 'button', 'aria-expanded': 'false' }, `${n} ${n === 1 ? 'answer' : 'answers'} `, icon('right'));
  const texts = el('div', { class: 'lanes', hidden: true }, ...lanes.map(lane => answer(lane, turn.answers[lane.key])));
  const section = el('section', { class: 'turn turn-folded', 'aria-label': `Turn ${place}` },
    el('div', { class: 'turn-user' }, el('span', { class: 'who' }, 'You'), el('p', {}, turn.input), answered.length ? button : ''), texts);
  button.addEventListener('click', () => {
    const open = button.getAttribute('aria-expanded') !== 'true';
    button.setAttribute('aria-expanded', String(open));
    section.classList.toggle('turn-folded', !open);
    texts.hidden = !open;
  });
  return section;
}

function answer(lane, said) {
  const text = said ? el('div', { class: 'out' }, said.text || 'No text.') : el('p', { class: 'answer-hint' }, 'This lane was not there yet.');
  return el('article', { class: `answer ${laneClass(lane)}`, 'data-lane': lane.key, 'aria-label': `${lane.name}, earlier answer` }, text);
}
