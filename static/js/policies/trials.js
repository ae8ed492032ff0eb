// Trials of a search: success and score against latency, the best one marked, drawn anew while it runs.
import { colours, CONFIG } from '../plots.js';

const root = document.querySelector('[data-trials]');
const WORDS = { success_rate: ['accepted, share', '.2f'], avg_score: ['mean score', '.2f'] };
let trials = JSON.parse(document.getElementById(root.dataset.trials).textContent);

function draw() {
  if (!window.Plotly) return;
  for (const chart of root.querySelectorAll('[data-plot]')) drawOne(chart, chart.dataset.plot);
}

function drawOne(chart, measure) {
  const ink = colours();
  const known = trials.filter(trial => !trial.refused);
  const mark = (some, symbol, size, color, name) => ({
    type: 'scatter', mode: 'markers', name, x: some.map(t => t.avg_latency_ms), y: some.map(t => t[measure]),
    text: some.map(t => `${t.number}: ${Object.entries(t.values).map(([path, value]) => `${path} ${value}`).join(', ')}`),
    hovertemplate: `%{text}<br>%{y:${WORDS[measure][1]}} at %{x:.0f} ms<extra></extra>`,
    marker: { symbol, size, color, line: { color: ink.surface, width: 1 } },
  });
  const axis = { zeroline: false, color: ink.faint, gridcolor: ink.line, tickfont: { size: 11 }, fixedrange: true };
  window.Plotly.react(chart, [
    mark(known.filter(t => !t.best), 'circle', 8, ink.main, 'trials'),
    mark(known.filter(t => t.best), 'star', 15, ink.text, 'best'),
  ], {
    height: 260, margin: { l: 44, r: 12, t: 10, b: 40 }, showlegend: false, dragmode: false,
    paper_bgcolor: 'transparent', plot_bgcolor: 'transparent', font: { family: ink.font, size: 11, color: ink.faint },
    hoverlabel: { bgcolor: ink.over, bordercolor: ink.strong, font: { family: ink.font, color: ink.text } },
    xaxis: { ...axis, title: { text: 'mean latency, ms', font: { size: 11 }, standoff: 6 }, rangemode: 'tozero' },
    yaxis: { ...axis, title: { text: WORDS[measure][0], font: { size: 11 }, standoff: 6 }, range: [-0.05, 1.05], nticks: 5 },
  }, CONFIG);
}

/** The rows of a running search arrive with its progress. */
document.addEventListener('steerboard:job', event => {
  const found = event.detail.facts?.found?.trials;
  if (!found || found.length === trials.length) return;
  trials = withBest(found.map((trial, i) => ({ ...trial, number: i + 1 })));
  draw();
  drawTable();
});

/** The table as the server draws it now. */
async function drawTable() {
  try {
    const page = new DOMParser().parseFromString(await (await fetch(location.href)).text(), 'text/html');
    const fresh = page.querySelector('[data-trial-table]');
    if (fresh) document.querySelector('[data-trial-table]').replaceWith(fresh);
  } catch {
    // the next trial tries again
  }
}

function withBest(found) {
  const order = (a, b) => b.success_rate - a.success_rate || b.avg_score - a.avg_score || a.avg_latency_ms - b.avg_latency_ms;
  const best = found.filter(trial => !trial.refused).sort(order)[0];
  return found.map(trial => ({ ...trial, best: trial === best }));
}

document.addEventListener('steerboard:theme', draw);
if (document.readyState === 'complete') draw();
else addEventListener('load', draw);
