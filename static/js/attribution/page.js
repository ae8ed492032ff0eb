// One attribution that has found something. One place is pointed at and one is chosen; every figure on the page shows both.
// Tokens are hostile text: text nodes only, and through `plain` where Plotly draws them.
import { icon } from '../base.js';
import { el } from '../experiments/dom.js';
import { drawDirect } from './direct.js';
import { drawFeatures } from './features.js';
import { drawLens } from './lens.js';
import { drawMaps } from './maps.js';
import { drawScatter } from './scatter.js';
import { Strip } from './strip.js';
import { drawTop } from './top.js';
import { signed, visible } from './words.js';

const data = JSON.parse(document.getElementById('attribution-data').textContent);
const at = name => document.querySelector(`[data-${name}]`);
const found = data.found.attribute;
const METRIC = { logit_difference: 'logits', log_probability: 'nats', kl: 'nats' }[data.question.metric];

/** What all figures share. A place is {site, layer, position, head}, each of which may be missing. */
const page = {
  data, found, metric: METRIC, chosen: null, followers: [],
  partner: new Map(found.alignment.map(([i, j]) => [j, i])),
  gap: found.clean.metric - found.corrupted.metric,

  follow(follower) { this.followers.push(follower); },
  point(place) {
    this.followers.forEach(follower => follower.point?.(place));
    say(place ?? this.chosen, !place);
  },
  choose(place) {
    this.chosen = same(place, this.chosen) ? null : place;
    this.followers.forEach(follower => follower.choose?.(this.chosen));
    say(this.chosen, true);
  },
  /** `␣Mary`, or `␣John → ␣Mary` where the clean prompt has another token there. */
  tokenAt(position) {
    const corrupted = visible(found.corrupted.tokens[position]?.[1] ?? '');
    const i = this.partner.get(position);
    if (i === undefined) return `${corrupted} (no partner)`;
    const clean = visible(found.clean.tokens[i][1]);
    return clean === corrupted ? corrupted : `${corrupted} → ${clean}`;
  },
  nameOf({ site, layer, head }) {
    if (head !== null && head !== undefined) return `L${layer}.H${head}${site && site !== 'z' ? ` ${site}` : ''}`;
    return layer === undefined ? '' : `L${layer}${site ? ` ${site === 'resid_pre' ? 'resid' : site}` : ''}`;
  },
};

function same(one, other) {
  return Boolean(one && other) && ['site', 'layer', 'position', 'head'].every(name => (one[name] ?? null) === (other[name] ?? null));
}

function effectOf({ site, layer, position, head }) {
  const scores = found.sites[site]?.[found.layers.indexOf(layer)];
  if (!scores) return null;
  const cell = position === undefined || position === null ? null : scores[position];
  if (Array.isArray(cell)) return head === undefined || head === null ? null : cell[head];
  if (cell !== null && cell !== undefined && !Array.isArray(scores[0])) return cell;
  if (head === undefined || head === null) return null;
  return scores.reduce((sum, row) => sum + (Array.isArray(row) ? row[head] ?? 0 : 0), 0);
}

/** The line above the maps. It is spoken where a person stays, not where a mouse passes. */
function say(place, resting) {
  const line = at('readout');
  line.setAttribute('aria-live', resting ? 'polite' : 'off');
  if (!place) return line.replaceChildren('Point at a cell, or walk the maps with the arrow keys.');
  const parts = [];
  if (place.layer !== undefined) parts.push(el('b', {}, page.nameOf(place)));
  if (place.position !== undefined && place.position !== null) parts.push(el('span', {}, `token ${place.position} `, el('code', { class: 'tok' }, page.tokenAt(place.position))));
  const effect = effectOf(place);
  if (effect !== null) parts.push(el('span', { class: `num ${effect > 0 ? 'pos' : effect < 0 ? 'neg' : ''}` }, `${signed(effect)} ${METRIC}`));
  if (effect !== null && Math.abs(page.gap) > 1e-9 && found.signed) parts.push(el('span', { class: 'faint' }, `${Math.round((100 * effect) / page.gap)} % of clean − corrupted`));
  line.replaceChildren(...parts);
}

function headline() {
  const fact = (name, value, why) => el('div', {}, el('dt', {}, name), el('dd', {}, value, el('span', { class: 'why' }, why)));
  const top = found.top[0];
  at('headline').replaceChildren(
    fact('Clean', el('span', {}, signed(found.clean.metric), ' ', el('small', {}, METRIC)), 'metric of the clean run'),
    fact('Corrupted', el('span', {}, signed(found.corrupted.metric), ' ', el('small', {}, METRIC)), 'where every place is patched in'),
    fact('To be explained', signed(page.gap), 'clean − corrupted'),
    ...(top ? [fact('Strongest', page.nameOf(top), `${top.position === null ? '' : `${page.tokenAt(top.position)}, `}${signed(top.predicted)} predicted`)] : []),
    fact('Tokens', `${found.clean.tokens.length} and ${found.corrupted.tokens.length}`, `${found.alignment.length} in pairs, ${{ place: 'place by place', difference: 'by what they share', hand: 'by hand' }[found.aligned_by] ?? found.aligned_by}`),
    fact('Took', `${found.seconds < 10 ? found.seconds.toFixed(1) : Math.round(found.seconds)} s`, `${found.passes} block passes`),
  );
  const notes = [...(found.notes ?? []), ...(found.signed ? [] : ['GradDrop adds magnitudes up: these numbers have no sign.'])];
  at('notes').replaceChildren(...notes.map(note => el('p', { class: 'notice', role: 'note' }, icon('info'), el('span', {}, note))));
}

function draw() {
  headline();
  const strip = new Strip(at('strip'), page);
  page.follow(strip);
  const redraw = [
    drawMaps(at('maps'), at('map-tools'), page),
    drawTop({ table: at('top'), sub: at('top-sub'), tools: at('top-tools') }, page),
    data.found.patch_exactly && drawScatter(at('scatter'), page),
    data.found.attribute_features && drawFeatures({ root: at('features'), sub: at('features-sub'), tools: at('features-tools') }, page),
    data.found.direct_logits && drawDirect({ root: at('direct'), sub: at('direct-sub') }, page),
    data.found.logit_lens && drawLens({ root: at('lens'), sub: at('lens-sub'), tools: at('lens-tools') }, page),
  ].filter(Boolean);
  document.addEventListener('steerboard:theme', () => redraw.forEach(again => again()));
}

if (window.Plotly) draw();
else window.addEventListener('load', draw);
