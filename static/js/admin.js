// What the admin pages' Alpine cannot read inline: under our policy nothing is evaluated, so functions are named here.
(() => {
  const THEME = 'adminTheme'; // where unfold keeps its theme, as JSON
  const SIDEBAR = 'sidebarDesktopOpen';
  const UNFOLD = ['theme', 'searchForm', 'searchDropdown', 'searchCommand']; // of unfold's app.js

  const read = key => {
    try { return localStorage.getItem(key); } catch { return null; }
  };
  const write = (key, value) => {
    try { localStorage.setItem(key, value); } catch { /* private mode: it lasts for this page */ }
  };

  write(THEME, JSON.stringify(window.steerboardTheme.choice())); // one choice for all pages

  const frame = firstTab => ({
    activeTab: firstTab,
    sidebarMobileOpen: false,
    sidebarDesktopOpen: read(SIDEBAR) !== '0',
    window: { location: { pathname: location.pathname, search: location.search } }, // unfold's forms build their action of it
    init() {
      if (firstTab) this.activeTab = window.getCurrentTab() || firstTab;
      this.$watch('adminTheme', choice => window.steerboardTheme.set(choice));
    },
    toggleSidebar() {
      this.sidebarDesktopOpen = !this.sidebarDesktopOpen;
      write(SIDEBAR, this.sidebarDesktopOpen ? '1' : '0');
    },
  });

  /** What assistive software asks for and unfold and Django leave out. */
  const name = () => {
    document.getElementById('main')?.setAttribute('role', 'main');
    for (const select of document.querySelectorAll('select.admin-autocomplete')) {
      const label = document.querySelector(`label[for="${select.id}"]`)?.textContent.trim();
      select.nextElementSibling?.querySelectorAll('.select2-selection, .select2-selection__rendered').forEach(part => part.setAttribute('aria-label', label ?? 'Choose'));
    }
  };
  addEventListener('load', () => setTimeout(name));

  document.addEventListener('alpine:init', () => {
    window.Alpine.data('adminFrame', frame);
    for (const name of UNFOLD) window.Alpine.data(name, window[name]);
  });
})();
