import { session } from '../state/store';
import { Login } from '../pages/Login';
import { Notices } from './Notices';
import { QuestionDialog } from './QuestionDialog';
import { Shell } from './Shell';

export function App() {
  const who = session.value;
  if (who === undefined) return <div class="booting" role="status" aria-label="Loading" />;
  return (
    <>
      {who ? <Shell /> : <Login />}
      <QuestionDialog />
      <Notices />
    </>
  );
}
