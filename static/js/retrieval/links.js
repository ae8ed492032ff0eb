// Lines from tokens to the passages they rest on, as wide as what is lost. On a phone there are none: the cards light up.
import { svg } from '../experiments/dom.js';

export function drawLinks({ root, drawing }, tokens, cards, page) {
  const lines = page.found.edges.map(edge => ({ edge, path: svg('path', { 'stroke-width': 1 + (5 * edge.drop) / page.strongest }) }));
  drawing.replaceChildren(...lines.map(line => line.path));

  const place = () => {
    const frame = root.getBoundingClientRect();
    for (const { edge, path } of lines) {
      const from = tokens[edge.token].getBoundingClientRect(), to = cards[edge.span].getBoundingClientRect();
      const x0 = from.left + from.width / 2 - frame.left, y0 = from.bottom - frame.top;
      const x1 = to.left - frame.left, y1 = to.top + Math.min(to.height / 2, 28) - frame.top;
      const bend = Math.max(40, (x1 - x0) / 2);
      path.setAttribute('d', `M${x0},${y0} C${x0},${y0 + 24} ${x1 - bend},${y1} ${x1},${y1}`);
    }
  };
  page.follow(token => {
    for (const { edge, path } of lines) path.classList.toggle('on', edge.token === token);
    place();
  });
  new ResizeObserver(place).observe(root);
  window.addEventListener('scroll', place, { passive: true });
  place();
}
