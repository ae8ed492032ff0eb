// The form of a policy: only what the method takes is shown and sent, and JSON is checked while it is typed.
import '../base.js';

const form = document.querySelector('[data-policy-form]');
const method = form?.elements['sampling.method'];
const ALIASES = { ssd: 'speculative-decoding', 'adaptive-determinantal-sampling': 'ads' };
const WAIT_MS = 400;

/** A field that the method does not take is not sent either, unless something stands there that must be seen to be mended. */
function drawMethod() {
  const chosen = ALIASES[method.value] ?? (method.value || 'top-k');
  for (const field of form.querySelectorAll('[data-for]')) {
    const taken = field.dataset.for.split(' ').includes(chosen);
    field.hidden = !taken;
    for (const input of field.querySelectorAll('input, textarea, select')) input.disabled = !taken;
  }
}

function check(area) {
  const problem = area.parentElement.querySelector('[data-json-problem]');
  const text = area.value.trim();
  let said = '';
  try {
    if (text) JSON.parse(text);
  } catch (error) {
    said = `This is not JSON yet: ${error.message}.`;
  }
  problem.textContent = said;
  problem.hidden = !said;
  area.toggleAttribute('aria-invalid', Boolean(said));
  if (said) area.setAttribute('aria-invalid', 'true');
}

if (method) {
  method.addEventListener('change', drawMethod);
  drawMethod();
}
for (const area of document.querySelectorAll('[data-json-check]')) {
  let timer = 0;
  area.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(() => check(area), WAIT_MS);
  });
}
