// A feature's page: what the engine says of it is fetched, since it may have to load the autoencoder first.
import { el, icon, svg } from '../playground/dom.js';
import { ask, inline, legend, level, number, shown } from './tokens.js';
import '../copy.js';

const root = document.getElementById('feature');
const $ = name => root.querySelector(`[data-${name}]`) ?? document.querySelector(`[data-${name}]`);
const voice = document.querySelector('[data-voice]');
const { source } = root.dataset;

function draw(facts) {
  const known = facts.contexts.length > 0;
  $('contexts').replaceChildren(...(known ? facts.contexts.map((context, i) => drawContext(context, facts.max_activation, i)) : [unknown(facts)]));
  if (known) legend($('legend'), facts.max_activation ?? Math.max(...facts.contexts.map(c => c.values[c.at])));
  $('tokens').replaceChildren(effects('Promotes', facts.promotes, 'pos'), effects('Suppresses', facts.suppresses, 'neg'));
  $('numbers').replaceChildren(numbers(facts), ...(facts.histogram?.counts?.length ? [histogram(facts.histogram)] : []));
  $('near').replaceChildren(neighbours(facts));
  root.setAttribute('aria-busy', 'false');
  voice.textContent = 'The feature is shown.';
}

function unknown(facts) {
  const dead = facts.density === 0;
  return el('p', { class: 'muted' }, dead ? 'It fired nowhere in the indexed corpus. Another corpus may wake it, or it is dead.' : 'No corpus is indexed for this autoencoder, so nobody knows where it fires. ', dead ? null : el('a', { href: `/features/${encodeURIComponent(source)}/` }, 'Index one.'));
}

function drawContext(context, most, i) {
  const largest = most ?? context.values[context.at];
  const tokens = context.tokens.map((text, at) => {
    const value = context.values[at];
    const step = level(value, largest);
    return el('span', { class: `tk${step ? ` f${step}` : ''}${at === context.at ? ' peak' : ''}`, title: value > 0 ? `${inline(text)}: ${number(value, 3)}` : null }, shown(text));
  });
  return el('div', { class: 'context' }, el('span', { class: 'num context-max' }, number(context.values[context.at])), el('p', { class: 'context-text', 'aria-label': `Context ${i + 1}, strongest at ${inline(context.tokens[context.at])}` }, ...tokens));
}

function effects(title, rows, sign) {
  return el('div', {}, el('h4', {}, title), el('ol', {}, ...rows.map(([id, text, change]) =>
    el('li', {}, el('code', { title: `token ${id}` }, inline(text)), el('span', { class: `num ${sign}` }, `${change > 0 ? '+' : ''}${number(change, 2)}`)))));
}

function numbers(facts) {
  const row = (name, value, why = '') => [el('dt', {}, name), el('dd', {}, value, why ? el('small', { class: 'faint' }, ` ${why}`) : null)];
  return el('dl', { class: 'facts-list' },
    ...row('Maximum', number(facts.max_activation), facts.max_activation == null ? 'no corpus is indexed' : 'largest activation in the corpus'),
    ...row('Fires on', facts.density == null ? '–' : share(facts.density), facts.density == null ? '' : 'of its tokens'),
    ...row('Decoder norm', number(facts.decoder_norm, 3)),
    ...row('Residual norm', number(facts.residual_norm, 1), facts.residual_norm == null ? '' : 'what 1 relative adds'));
}

const share = density => (density > 0 && density < 0.0001 ? 'less than 0.01 %' : `${number(density * 100, 2)} %`);

function histogram({ edges, counts }) {
  const most = Math.max(...counts, 1), width = 100 / counts.length;
  const height = count => (count ? Math.max(1, Math.log1p(count) / Math.log1p(most) * 60) : 0);
  const picture = svg('svg', { class: 'histogram', viewBox: '0 0 100 62', preserveAspectRatio: 'none', role: 'img', 'aria-label': `Histogram of activations above 0, ${counts.length} bins from ${number(edges[0])} to ${number(edges.at(-1))}, log counts` },
    ...counts.map((count, i) => svg('rect', { x: i * width + width * 0.08, width: width * 0.84, y: 61 - height(count), height: height(count) }, svg('title', {}, `${number(edges[i])} to ${number(edges[i + 1])}: ${count.toLocaleString('en')} tokens`))),
    svg('path', { class: 'axis', d: 'M0 61.5h100' }));
  const table = el('details', {}, el('summary', {}, 'As a table'), el('table', { class: 'table' }, el('thead', {}, el('tr', {}, el('th', { scope: 'col' }, 'Activation'), el('th', { scope: 'col', class: 'num' }, 'Tokens'))),
    el('tbody', {}, ...counts.map((count, i) => el('tr', {}, el('td', {}, `${number(edges[i])} to ${number(edges[i + 1])}`), el('td', { class: 'num' }, count.toLocaleString('en')))))));
  return el('figure', { class: 'histogram-box' }, el('figcaption', {}, 'Activations above 0 ', el('span', { class: 'faint' }, 'log counts')), picture,
    el('p', { class: 'histogram-ends num' }, el('span', {}, number(edges[0])), el('span', {}, number(edges.at(-1)))), table);
}

function neighbours({ nearest, labels }) {
  if (!nearest.length) return el('p', { class: 'panel-body muted' }, 'There are no others.');
  return el('ul', { class: 'plain-list' }, ...nearest.map(([index, cosine]) => {
    const label = labels[index];
    return el('li', { class: 'near' }, el('a', { href: `/features/${encodeURIComponent(source)}/${index}/` }, el('b', { class: 'num' }, String(index)), ' ', label?.text ?? ''),
      label?.proposed ? el('span', { class: 'tag tag-warn' }, 'proposed') : null, el('span', { class: 'num' }, number(cosine, 2)));
  }));
}

async function load() {
  root.setAttribute('aria-busy', 'true');
  $('problem').hidden = true;
  try {
    draw(await ask(root.dataset.facts));
  } catch (error) {
    for (const name of ['contexts', 'tokens', 'numbers', 'near']) $(name).replaceChildren(el('p', { class: 'panel-body faint' }, 'Not known'));
    $('problem').replaceChildren(el('div', { class: 'error-panel', role: 'alert' }, icon('warn'), el('div', {}, el('h3', {}, 'The model could not describe this feature'), el('p', {}, error.message),
      el('div', { class: 'actions' }, el('button', { class: 'btn btn-sm', type: 'button', onclick: load }, 'Try again'), el('span', { class: 'rid' }, el('code', {}, error.code ?? ''))))));
    $('problem').hidden = false;
    root.setAttribute('aria-busy', 'false');
  }
}

load();
