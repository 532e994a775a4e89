// Lets the button beside each password field show what is typed. It stays hidden without scripts.
(() => {
  for (const button of document.querySelectorAll("button.reveal")) {
    const input = document.getElementById(button.getAttribute("aria-controls"));
    const [verb, state] = [button.firstElementChild, button.nextElementSibling];
    const show = (shown) => {
      input.type = shown ? "text" : "password";
      verb.textContent = shown ? "Hide" : "Show";
      state.textContent = shown ? "Your password is visible." : "Your password is hidden.";
    };
    button.addEventListener("click", () => show(input.type === "password"));
    // Sent as a password, so that browsers do not offer it later as text that was typed before.
    input.form.addEventListener("submit", () => show(false));
    button.hidden = false;
  }
})();
