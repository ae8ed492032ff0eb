// Behaviour against coherence: one mark per cell, the null band, base and prompting. A Plotly chart.
import { colours, rasterize } from './dom.js';

const CONFIG = { displayModeBar: false, displaylogo: false, showSendToCloud: false, plotlyServerURL: '', showTips: false, doubleClick: false, responsive: true };

/** Draw into `container`. `cells` are {x, y, group, name}; `marks` {x, y, name, kind: base|prompting|steered}; `pick(group)`. */
export function drawTradeoff(container, { cells, front, marks, band, floor, chosen, label, pick }) {
  const ink = colours();
  const inFront = front.map(group => cells.find(cell => cell.group === group)).filter(Boolean);
  const others = cells.filter(cell => !front.includes(cell.group));
  const dots = (some, more) => ({ type: 'scatter', x: some.map(c => c.x), y: some.map(c => c.y), customdata: some.map(c => c.group), text: some.map(c => c.name), hovertemplate: '%{text}<br>%{y:.2f}, coherence %{x:.2f}<extra></extra>', ...more });
  const traces = [
    dots(others, { mode: 'markers', marker: { size: 7, color: ink.surface, line: { width: 1.25, color: ink.control } } }),
    dots(inFront, { mode: 'lines+markers', line: { color: ink.lane, width: 1.5 }, marker: { size: 8, color: ink.lane, line: { width: 1, color: ink.surface } } }),
  ];
  const shapes = { base: ['square', ink.base], prompting: ['diamond', ink.prompt], steered: ['star', ink.lane] };
  for (const mark of marks) {
    const [symbol, color] = shapes[mark.kind];
    traces.push({ type: 'scatter', mode: 'markers', x: [mark.x], y: [mark.y], text: [mark.name], hovertemplate: '%{text}<br>%{y:.2f}, coherence %{x:.2f}<extra></extra>', marker: { size: 11, symbol, color, line: { width: 1, color: ink.surface } } });
  }
  const at = cells.find(cell => cell.group === chosen);
  if (at) traces.push({ type: 'scatter', mode: 'markers', x: [at.x], y: [at.y], hoverinfo: 'skip', marker: { size: 15, symbol: 'circle-open', color: ink.text, line: { width: 2 } } });
  const axis = { fixedrange: true, zeroline: false, color: ink.faint, gridcolor: ink.line, tickfont: { size: 11 } };
  const layout = {
    height: 340, margin: { l: 46, r: 12, t: 14, b: 40 }, showlegend: false, dragmode: false, hovermode: 'closest',
    paper_bgcolor: 'transparent', plot_bgcolor: 'transparent', font: { family: ink.font, size: 11, color: ink.faint },
    hoverlabel: { bgcolor: ink.over, bordercolor: ink.strong, font: { family: ink.font, color: ink.text } },
    xaxis: { ...axis, range: [-0.04, 1.06], title: { text: 'coherence, 1 = base', font: { size: 11 }, standoff: 6 } },
    yaxis: { ...axis, nticks: 6, title: { text: label, font: { size: 11 }, standoff: 4 } },
    shapes: [
      { type: 'rect', layer: 'below', x0: -0.04, x1: floor, yref: 'paper', y0: 0, y1: 1, fillcolor: ink.shade, line: { width: 0 } },
      { type: 'line', x0: floor, x1: floor, yref: 'paper', y0: 0, y1: 1, line: { color: ink.text, width: 1, dash: 'dot' } },
      ...(band ? [{ type: 'rect', layer: 'below', xref: 'paper', x0: 0, x1: 1, y0: band.low, y1: band.high, fillcolor: ink.control, opacity: 0.25, line: { width: band.low === band.high ? 2 : 0, color: ink.control } }] : []),
    ],
    annotations: [
      { text: `floor ${floor}`, showarrow: false, x: floor, xanchor: 'right', xshift: -4, yref: 'paper', y: 1, yanchor: 'top', font: { size: 11, color: ink.muted } },
      ...(band ? [{ text: `${band.count} random directions, 95 %`, showarrow: false, xref: 'paper', x: 0.01, xanchor: 'left', y: band.high, yanchor: 'bottom', font: { size: 11, color: ink.muted } }] : []),
    ],
  };
  window.Plotly.react(container, traces, layout, CONFIG);
  container.removeAllListeners?.('plotly_click');
  container.on('plotly_click', event => event.points[0].customdata && pick(event.points[0].customdata));
}

/** A line with its interval over doses. */
export function drawCurve(container, { doses, curve, label }) {
  const ink = colours();
  const axis = { fixedrange: true, zeroline: true, zerolinecolor: ink.strong, color: ink.faint, gridcolor: ink.line, tickfont: { size: 11 } };
  const traces = [{
    type: 'scatter', mode: 'lines+markers', x: doses, y: curve.map(p => p.mean), line: { color: ink.lane, width: 2 }, marker: { size: 7 },
    error_y: { type: 'data', symmetric: false, array: curve.map(p => p.high - p.mean), arrayminus: curve.map(p => p.mean - p.low), color: ink.muted, thickness: 1.25 },
    hovertemplate: '%{x}×: %{y:.2f}<extra></extra>',
  }];
  const layout = {
    height: 240, margin: { l: 46, r: 12, t: 10, b: 36 }, showlegend: false, dragmode: false, paper_bgcolor: 'transparent', plot_bgcolor: 'transparent',
    font: { family: ink.font, size: 11, color: ink.faint }, xaxis: { ...axis, title: { text: 'strength, ×', font: { size: 11 } } }, yaxis: { ...axis, title: { text: label, font: { size: 11 } } },
  };
  window.Plotly.react(container, traces, layout, CONFIG);
}

/** A drawn chart as a PNG. Plotly would go by a blob: address, which the content security policy refuses. */
export async function plotPng(container, width, height) {
  const drawing = await window.Plotly.toImage(container, { format: 'svg', width, height });
  return rasterize(drawing, width, height);
}
