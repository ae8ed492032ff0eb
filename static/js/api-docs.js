// Draws the API's operations with Swagger UI, which comes from this server, in the theme of the page.
import { csrfToken } from './base.js';

const box = document.getElementById('swagger');
const dressed = () => document.documentElement.classList.toggle('dark-mode', window.steerboardTheme.shown() === 'dark');

// A session's changes carry the page's token; a key that was typed under Authorize goes before it.
function signed(request) {
  if (new URL(request.url, location.href).origin === location.origin && request.method !== 'GET') {
    request.headers['X-CSRFToken'] = csrfToken();
  }
  return request;
}

function draw() {
  if (!window.SwaggerUIBundle) {
    box.querySelector('[data-waiting]').textContent =
      'The list of operations could not be loaded. Reload the page; the OpenAPI document has the same in it.';
    return;
  }
  window.SwaggerUIBundle({
    url: box.dataset.schema,
    domNode: box,
    deepLinking: true,
    docExpansion: 'list',
    defaultModelsExpandDepth: -1,
    validatorUrl: null,
    requestInterceptor: signed,
    // Swagger UI draws a second main landmark
    onComplete: () => box.querySelectorAll('main').forEach((part) => part.setAttribute('role', 'group')),
  });
}

document.addEventListener('steerboard:theme', dressed);
dressed();
draw();
