// The receipt of an answer: what acted on it, where, on how many tokens, and how strongly.
import { firedRows } from './behaviors.js';
import { count, el, figure, icon } from './dom.js';

/** `name(applied)` gives the name of what was applied. The element remembers whether it was open. */
export function drawReceipt(receipt, { open, name, systemPrompt, watched = [], promptTokens = 0 }) {
  const applied = receipt.applied ?? [];
  const fired = receipt.fired_total ? `, ${count(receipt.fired_total)} fired` : '';
  const title = applied.length ? applied.map(a => short(a, name)).join(', ') : 'no interventions';
  return el('details', { class: 'receipt', open },
    el('summary', {}, chevron(), 'Receipt', el('span', { class: 'num' }, `${title}${fired}${inShort(receipt)} · seed ${receipt.seed}`)),
    el('dl', {}, ...applied.flatMap(a => facts(a, name)), ...(applied.length ? [] : nothing(systemPrompt)), ...firedRows(receipt, watched, promptTokens), ...chosen(receipt), ...origin(receipt)));
}

function chevron() {
  const mark = icon('right');
  mark.setAttribute('class', 'icon chev');
  return mark;
}

const layerOf = a => a.hook_name.match(/\d+/)?.[0] ?? '';
const unit = a => (a.operation === 'rotate' ? '°' : a.operation === 'ablate' || a.operation === 'affine' ? '' : a.unit === 'relative' ? '×' : a.unit === 'max' ? ' max' : ' raw');
const short = (a, name) => `${name(a)} L${layerOf(a)} ${figure(a.strength)}${unit(a)}`;
const row = (term, ...value) => [el('dt', {}, term), el('dd', {}, ...value)];
const num = text => el('span', { class: 'num' }, text);

function facts(a, name) {
  const dose = a.residual_norm ? `${figure(a.mean_dose)}, which is ${figure(a.mean_dose / a.residual_norm)}× the median residual norm` : figure(a.mean_dose);
  return [
    ...row('Applied', `${a.operation} `, el('b', {}, name(a)), ` ${figure(a.strength)}${unit(a)} at `, num(a.hook_name)),
    ...row('On', `${count(a.prompt_tokens)} prompt and ${count(a.generated_tokens)} generated tokens`),
    ...row('Mean dose', dose),
    ...(a.feature ? row('Feature', num(`${a.feature.source}/${a.feature.index}`)) : []),
    ...(a.watch ? row('Because of', a.watch) : []),
    ...(a.activation == null ? [] : row('Activation', num(figure(a.activation)), ', its mean before the edit')),
    ...row('Projection', num(figure(a.projection_before)), ' before, ', num(figure(a.projection_after)), ' after'),
    ...(a.reference == null ? [] : row('Counted from', num(figure(a.reference)), ', where the negative examples lie')),
    ...(a.norm_preserving ? row('Length', 'kept') : []),
    ...(a.schedule ? row('Schedule', { first: 'the first ', ramp: 'rising over ', decay: 'halved every ' }[a.schedule.kind], `${count(a.schedule.tokens)} generated tokens`) : []),
    ...(a.condition ? row('Condition', ...condition(a.condition)) : []),
  ];
}

function condition(c) {
  const held = c.held_tokens ? `${count(c.held_tokens)} tokens left alone` : 'no token left alone';
  if (c.value === null) return ['nothing was decided'];
  const what = c.decided === 'prompt' ? (c.pooling === 'last' ? 'prompt’s last token' : 'prompt’s mean') : 'mean over tokens';
  return [`${what}, ${c.measure} at `, num(c.hook_name), ': ', num(figure(c.value, 3)), `, wanted ${c.comparison} `, num(figure(c.threshold, 3)), `; ${held}`];
}

function nothing(systemPrompt) {
  return row('Applied', systemPrompt ? 'a system prompt; the model itself is unchanged' : 'nothing; this is the model as it is');
}

const KINDS = { json: 'JSON', json_schema: 'the JSON schema', regex: 'the pattern', grammar: 'the grammar' };

/** What the answer had to be and how it was chosen, where that was said. */
function chosen({ constraint, draft, members = [], beams = [] }) {
  const [best, ...others] = beams;
  const share = draft?.proposed ? `, ${figure((100 * draft.accepted) / draft.proposed, 0)} %` : '';
  return [
    ...(constraint ? row('Constraint', el('b', {}, constraint.complete ? 'complete' : 'not complete'), `: ${constraint.complete ? 'the text is what ' : ''}${KINDS[constraint.kind] ?? constraint.kind}${constraint.complete ? ' says' : ''}; ${count(constraint.masked_tokens)} tokens chosen under it${constraint.problem ? `. ${constraint.problem}` : ''}`) : []),
    ...(draft && !draft.proposed ? row('Draft', 'no token was guessed') : []),
    ...(draft?.proposed ? row('Draft', `${count(draft.accepted)} of ${count(draft.proposed)} guessed tokens stood${share}, in ${count(draft.passes)} passes; guessed by `, draft.model || 'look-up in the text') : []),
    ...(members.length ? row('Members', members.map(m => `${m.model || 'this model'} ${figure(100 * m.weight, 0)} %`).join(', ')) : []),
    ...(best ? row('Score', num(figure(best.score, 3)), ', log-probability per length') : []),
    ...others.flatMap((beam, i) => row(i ? '' : 'Other beams', num(figure(beam.score, 3)), ` “${beam.text.trim().slice(0, 120)}”`)),
  ];
}

function inShort({ constraint, draft }) {
  const parts = [constraint && (constraint.complete ? 'constraint complete' : 'constraint not complete'), draft?.proposed && `${count(draft.accepted)} of ${count(draft.proposed)} guesses`];
  return parts.filter(Boolean).map(part => ` · ${part}`).join('');
}

function origin(receipt) {
  const revision = receipt.revision ? ` @ ${receipt.revision.slice(0, 12)}` : '';
  return [...row('Seed', num(String(receipt.seed))), ...row('Model', num(receipt.model + revision))];
}
