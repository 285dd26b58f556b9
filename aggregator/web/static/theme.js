// Before anything is painted: the reader's own theme.
try {
  const kept = localStorage.getItem("wattle-theme");
  if (kept) document.documentElement.dataset.theme = kept;
} catch { /* storage is off: the system's theme holds */ }
document.documentElement.classList.add("scripted");
