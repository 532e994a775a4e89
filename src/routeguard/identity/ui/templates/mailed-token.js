// Puts the token of a mailed link into the form, and takes it out of the address bar and the history. It sends nothing:
// that takes a press of the button, because mail scanners run scripts too.
(() => {
  const input = document.getElementById("token");
  function take() {
    // In the fragment; links mailed by earlier versions have it in the query.
    const link = new URL(location.href);
    const token = new URLSearchParams(link.hash.slice(1)).get("token") ?? link.searchParams.get("token");
    if (!token) return;
    input.value = token;
    input.closest(".field").hidden = true;
    history.replaceState(null, "", link.pathname);
  }
  take();
  // Another link opened in this tab changes only the fragment, and the page is not loaded again.
  addEventListener("hashchange", take);
})();
