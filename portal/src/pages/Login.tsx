import { useState } from 'preact/hooks';
import { Problem, sayProblem } from '../api/problem';
import { Logo } from '../app/Logo';
import { login } from '../state/store';
import { Banner } from '../ui/bits';
import { Button } from '../ui/Button';
import { TextField } from '../ui/Field';

export function Login() {
  const [user, setUser] = useState('');
  const [password, setPassword] = useState('');
  const [wrong, setWrong] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);

  const submit = async (e: Event): Promise<void> => {
    e.preventDefault();
    setBusy(true);
    setWrong(null);
    try {
      await login(user.trim(), password);
    } catch (error) {
      setWrong(
        error instanceof Problem && error.status === 401
          ? 'User or password is wrong.'
          : sayProblem(error),
      );
      setPassword('');
    } finally {
      setBusy(false);
    }
  };

  return (
    <main class="login">
      <form onSubmit={(e) => void submit(e)}>
        <div class="login-brand">
          <Logo size={40} />
          <h1>Log in to Mullion</h1>
          <p class="lead">{window.location.host}</p>
        </div>
        {wrong && <Banner tone="bad">{wrong}</Banner>}
        <TextField
          label="User"
          value={user}
          onInput={setUser}
          autoComplete="username"
          required
          autoFocus
        />
        <TextField
          label="Password"
          type="password"
          value={password}
          onInput={setPassword}
          autoComplete="current-password"
          required
        />
        <Button type="submit" variant="primary" disabled={busy || !user || !password}>
          {busy ? 'Logging in…' : 'Log in'}
        </Button>
      </form>
    </main>
  );
}
