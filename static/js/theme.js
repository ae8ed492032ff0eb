// Loaded before anything is drawn, so that the page never flashes in the other theme. A classic script for that reason.
(() => {
  const KEY = 'steerboard-theme';
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const read = () => {
    try { return localStorage.getItem(KEY) || 'auto'; } catch { return 'auto'; }
  };
  const shown = () => {
    const choice = read();
    return choice === 'auto' ? (dark.matches ? 'dark' : 'light') : choice;
  };
  const apply = () => {
    document.documentElement.dataset.bsTheme = shown();
    document.dispatchEvent(new CustomEvent('steerboard:theme', { detail: shown() }));
  };
  const set = choice => {
    try { localStorage.setItem(KEY, choice); } catch { /* private mode: the choice lasts for this page */ }
    document.documentElement.dataset.bsTheme = choice === 'auto' ? (dark.matches ? 'dark' : 'light') : choice;
    document.dispatchEvent(new CustomEvent('steerboard:theme', { detail: document.documentElement.dataset.bsTheme }));
  };
  dark.addEventListener('change', apply);
  addEventListener('storage', event => { if (event.key === KEY) apply(); });
  window.steerboardTheme = { choice: read, shown, set };
  apply();
})();
