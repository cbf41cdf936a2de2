// The key in the address comes after the '#', which browsers never send; it is taken out of the address before anything else happens.
const form = document.getElementById('form');
const message = document.getElementById('message');

async function signIn(key) {
  message.textContent = 'Signing in…';
  const answer = await fetch('/api/session', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ key }),
  });
  if (answer.ok) {
    location.replace('/');
    return;
  }
  message.textContent = answer.status === 401 ? 'This key is not valid.' : `The service answered ${answer.status}; try again.`;
}

form.addEventListener('submit', event => {
  event.preventDefault();
  signIn(form.key.value.trim()).catch(() => { message.textContent = 'The service does not answer.'; });
});

const key = new URLSearchParams(location.hash.slice(1)).get('key');
if (key) {
  history.replaceState(null, '', location.pathname);
  signIn(key).catch(() => { message.textContent = 'The service does not answer.'; });
}
