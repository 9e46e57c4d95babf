// Sets the colours before the first paint: a classic script, as modules run too late.
'use strict';
(() => {
	let theme = 'auto';
	try {
		theme = localStorage.getItem('dunlin.theme') || 'auto';
	} catch {
		// Storage is switched off: the system's colours are used.
	}
	if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
})();
