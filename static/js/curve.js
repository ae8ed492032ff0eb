// The loss curve of an optimised vector: of a job that runs, drawn again whenever jobs.js hears of it, or as it was kept.
import { drawFigures } from './plots.js';

const place = document.querySelector('[data-curve]');
const words = document.querySelector('[data-curve-facts]');
let figure, drawn = '';

function figureOf(curve) {
  const title = place.dataset.loss;
  const name = place.dataset.curve.toLowerCase().replace(/[^a-z0-9]+/g, '-') || 'vector';
  return {
    title, file: `${name}-loss`, digits: 3,
    x: { label: 'step', values: curve.map(([step]) => step) },
    series: [{ name: title, values: curve.map(([, loss]) => loss), kind: 'main' }],
  };
}

const number = (value, digits) => (Number.isFinite(value) ? value.toFixed(digits) : '');

function sentence({ step, steps, loss, best, norm, phase, vector }) {
  const parts = [
    vector ? `vector ${vector}` : '', phase === 'bounded' ? 'holding the KL' : '', steps ? `step ${step} of ${steps}` : '',
    Number.isFinite(loss) ? `loss ${number(loss, 3)}` : '',
    Number.isFinite(best) ? `best ${number(best, 3)}` : '', Number.isFinite(norm) ? `norm ${number(norm, 1)} raw` : '',
  ];
  return parts.filter(Boolean).join(' · ');
}

function show(facts) {
  const curve = (facts.curve ?? []).filter(([step, loss]) => Number.isFinite(step) && Number.isFinite(loss));
  const now = JSON.stringify(curve);
  if (!curve.length) return;
  if (words) words.textContent = sentence(facts);
  if (now === drawn) return;
  drawn = now;
  if (figure) figure.update(figureOf(curve));
  else [figure] = drawFigures(place, [figureOf(curve)]);
}

document.addEventListener('steerboard:job', ({ detail }) => show(detail.facts ?? {}));
show(JSON.parse(document.getElementById('facts').textContent));
