// An evaluation: every measure beside the base and prompting, the propensity curve, and who goes the wrong way.
import { button, csv, el, fixed, panel, range, save, saveUrl, tableOf } from './dom.js';
import { presetButton } from './grid.js';
import { drawCurve, plotPng } from './tradeoff.js';

export function drawEvaluation(page) {
  const { findings } = page;
  const parts = [measures(page)];
  const asked = Object.keys(ASKED).filter(kind => findings[kind]);
  for (const kind of asked) parts.push(choices(page, kind), against(page, kind));
  page.figures.replaceChildren(...parts);
  for (const kind of asked) {
    const { strengths, curve } = findings[kind];
    drawCurve(page.figures.querySelector(`[data-curve="${kind}"]`), { doses: strengths, curve, label: `log-odds, ${ASKED[kind].unit}` });
  }
}

const ASKED = {
  answers: { title: 'Whole answers', unit: 'nats per token', says: 'log-odds, per token, of the answer that shows it against the other' },
  letters: { title: 'Letters', unit: 'nats', says: 'log-odds of the letter of the answer that shows it, both orders averaged' },
};

const WHAT = [
  ['Behaviour', cell => `${fixed(cell.behaviour.mean)}  (${range(cell.behaviour)})`],
  ['Change from base, 95 %', cell => `${fixed(cell.change.mean)}  (${range(cell.change)})`],
  ['Prompts that go the wrong way', cell => `${cell.wrong.length} of ${cell.n}`],
  ['Coherence, 1 = base', cell => `${fixed(cell.coherence)}${cell.coherent ? '' : ', below the floor'}`],
  ['Perplexity under the unsteered model', cell => fixed(cell.perplexity, 1)],
  ['Distinct word pairs', cell => fixed(cell.variety)],
  ['Repeated runs of four words', cell => fixed(cell.repetition)],
  ['Words', cell => fixed(cell.words, 1)],
  ['Stopped by itself', cell => `${cell.stopped} of ${cell.n}`],
];

function measures(page) {
  const { findings } = page;
  const names = ['base', 'steered', 'prompting'].filter(name => findings[name]);
  const rows = WHAT.map(([what, of]) => [what, ...names.map(name => of(findings[name]))]);
  if (findings.naming) rows.push([`Naming “${findings.naming.concept}”, nats per token`, ...names.map(name => `${fixed(findings.naming.gains[name].mean)}  (${range(findings.naming.gains[name])})`)]);
  if (findings.judge) {
    for (const rubric of ['concept', 'instruct', 'fluency']) rows.push([`Judge: ${rubric}, 0 to 2`, ...names.map(name => fixed(findings.judge.ratings[name][rubric]))]);
    rows.push(['Judge: all three, harmonic mean', ...names.map(name => `${fixed(findings.judge.ratings[name].overall.mean)}  (${range(findings.judge.ratings[name].overall)})`)]);
  }
  const columns = ['Measure', ...names];
  const steered = findings.steered;
  const settings = page.settings;
  const tools = [button('CSV', 'Download the measures', () => save(`${page.file('measures')}.csv`, 'text/csv', csv(columns, rows)))];
  if (page.mine && steered) tools.push(presetButton({ group: 'steered' }, true));
  const notes = [];
  if (findings.neutral) notes.push(`On ${findings.neutral.texts} neutral texts the steered model is ${fixed(findings.neutral.kl.mean, 3)} nats per token (${range(findings.neutral.kl, 3)}) from the base, with the same likeliest token ${fixed(100 * findings.neutral.top1, 0)} % of the time.`);
  if (findings.projection) notes.push(`Projection on the vector: ${fixed(findings.projection.before)} before, ${fixed(findings.projection.after)} after, with a mean dose of ${fixed(findings.projection.dose)}. ${page.worth.projection}`);
  if (findings.naming || settings.behaviour.kind === 'naming') notes.push(page.worth.naming);
  if (findings.judge || settings.behaviour.kind === 'judge') notes.push(page.worth.judge);
  const tests = findings.tests?.length ? [el('h3', {}, 'Steered against base, corrected for many tests (Benjamini and Hochberg)'), el('div', { class: 'table-wrap' }, tableOf(['Of', 'p', 'corrected', 'holds at 5 %'], findings.tests.map(test => [test.of, test.p.toFixed(4), test.adjusted.toFixed(4), test.holds ? 'yes' : 'no'])))] : [];
  return panel('ms', `L${settings.layer} · ${settings.strength}×`, settings.behaviour.says, tools, el('div', { class: 'table-wrap' }, tableOf(columns, rows)), ...notes.map(text => el('p', { class: 'small muted' }, text)), ...tests);
}

function choices(page, kind) {
  const found = page.findings[kind];
  const { title, unit, says } = ASKED[kind];
  const chart = el('div', { class: 'curve', 'data-curve': kind, role: 'img', 'aria-label': `${title}: log-odds of the answer that shows the behaviour: ${found.strengths.map((s, i) => `${fixed(found.curve[i].mean)} at ${s}×`).join(', ')}` });
  const columns = ['strength', 'log-odds', 'low', 'high'];
  const rows = found.strengths.map((s, i) => [s, found.curve[i].mean, found.curve[i].low, found.curve[i].high]);
  const tools = [
    button('CSV', 'Download the curve', () => save(`${page.file(kind)}.csv`, 'text/csv', csv(columns, rows))),
    button('PNG', 'Download the picture', async () => saveUrl(`${page.file(kind)}.png`, await plotPng(chart, 720, 360))),
  ];
  const said = `Steerability, the mean slope: ${fixed(found.steerability.mean)} ${unit} per full dose (${range(found.steerability)}). ${fixed(100 * found.against.mean, 0)} % of ${found.items.length} pairs go the wrong way (${range({ low: 100 * found.against.low, high: 100 * found.against.high }, 0)} %).`;
  return panel(`mc-${kind}`, title, says, tools, chart, el('p', { class: 'small' }, said), el('p', { class: 'small muted' }, page.worth[kind]), el('details', {}, el('summary', {}, 'As a table'), el('div', { class: 'table-wrap' }, tableOf(columns, rows))));
}

function against(page, kind) {
  const { items } = page.findings[kind];
  const wrong = items.filter(item => item.slope < 0);
  const rows = (wrong.length ? wrong : items).map(item => [item.prompt, item.positive, item.negative, item.slope]);
  const title = wrong.length ? `${wrong.length} of ${items.length} pairs go the wrong way` : 'No pair goes the wrong way';
  const columns = ['Question', 'Shows it', 'Does not', `Slope, ${ASKED[kind].unit}`];
  return panel(`ag-${kind}`, `${ASKED[kind].title}: ${title.toLowerCase()}`, wrong.length ? 'steering makes the answer that shows the behaviour less likely' : 'all of them, the least steerable first', [button('CSV', 'Download all pairs', () => save(`${page.file(`${kind}-pairs`)}.csv`, 'text/csv', csv(columns, items.map(item => [item.prompt, item.positive, item.negative, item.slope]))))], el('div', { class: 'table-wrap as-table', role: 'region', tabindex: 0, 'aria-label': title }, tableOf(columns, rows)));
}
