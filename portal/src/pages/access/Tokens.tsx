// Tokens for scripts. The secret is shown once, right after it was made.
import { useState } from 'preact/hooks';
import { KeyRound, Plus, Trash2 } from '../../ui/icons';
import { post, remove } from '../../api/client';
import type { Role, Token, TokenMade } from '../../api/types';
import { ago, dateOnly } from '../../lib/format';
import { ask, notifyProblem } from '../../state/notices';
import { session, tokens } from '../../state/store';
import { Banner, CopyButton, Empty, Panel } from '../../ui/bits';
import { Button } from '../../ui/Button';
import { DataTable, type Column } from '../../ui/DataTable';
import { Dialog } from '../../ui/Dialog';
import { SelectField, TextField } from '../../ui/Field';
import { FormDialog } from '../FormDialog';
import { useCollection } from '../use-loaded';
import { RoleBadge, ROLES } from './Users';

const COLUMNS: Column<Token>[] = [
  {
    key: 'name',
    title: 'Token',
    width: 'minmax(120px, 1.6fr)',
    cell: (t) => <b>{t.name}</b>,
    sort: (t) => t.name,
  },
  {
    key: 'user',
    title: 'User',
    width: 'minmax(90px, 1fr)',
    from: 'tablet',
    cell: (t) => t.user,
    sort: (t) => t.user,
  },
  {
    key: 'role',
    title: 'Role',
    width: '130px',
    cell: (t) => <RoleBadge role={t.role} />,
    sort: (t) => t.role,
  },
  {
    key: 'expires',
    title: 'Expires',
    width: '120px',
    cell: (t) => (t.expires ? dateOnly(t.expires) : 'Never'),
    sort: (t) => t.expires,
  },
  {
    key: 'used',
    title: 'Last used',
    width: '120px',
    from: 'tablet',
    cell: (t) => (t.last_used ? ago(t.last_used) : 'Never'),
    sort: (t) => t.last_used,
  },
];

const LIFETIMES = [
  { value: '30', label: '30 days' },
  { value: '90', label: '90 days' },
  { value: '365', label: 'A year' },
  { value: '', label: 'Does not expire' },
];

/** A token may do no more than its user. */
function rolesFor(role: Role): typeof ROLES {
  const from = ROLES.findIndex((r) => r.value === role);
  return ROLES.slice(Math.max(0, from));
}

function CreateToken({ onMade, onClose }: { onMade(made: TokenMade): void; onClose(): void }) {
  const own = session.value?.role ?? 'viewer';
  const [name, setName] = useState('');
  const [role, setRole] = useState<Role>(own);
  const [days, setDays] = useState('90');
  return (
    <FormDialog
      title="New API token"
      action="Create"
      ready={name.trim() !== ''}
      fields={['/name', '/role', '/expires']}
      onClose={onClose}
      send={async () => {
        const expires = days
          ? new Date(Date.now() + Number(days) * 86_400_000).toISOString()
          : null;
        const made = await post<TokenMade>('/tokens', { name, role, expires });
        await tokens.load();
        onMade(made);
      }}
    >
      {(at) => (
        <>
          <TextField
            label="Name"
            hint="What it is for"
            value={name}
            onInput={setName}
            error={at('/name')}
            autoFocus
          />
          <SelectField
            label="Role"
            value={role}
            onInput={(r) => setRole(r as Role)}
            options={rolesFor(own)}
            error={at('/role')}
          />
          <SelectField
            label="Valid for"
            value={days}
            onInput={setDays}
            options={LIFETIMES}
            error={at('/expires')}
          />
        </>
      )}
    </FormDialog>
  );
}

async function drop(token: Token): Promise<void> {
  const answer = await ask({
    title: `Delete the token ${token.name}?`,
    body: ['What uses it is refused from now on.'],
    action: 'Delete token',
    danger: true,
  });
  if (answer === null) return;
  try {
    await remove(`/tokens/${token.id}`);
    await tokens.load();
  } catch (error) {
    notifyProblem(`${token.name} was not deleted`, error);
  }
}

export function Tokens() {
  const list = useCollection(tokens);
  const [creating, setCreating] = useState(false);
  const [made, setMade] = useState<TokenMade | null>(null);
  return (
    <>
      {tokens.problem.value && <Banner tone="bad">{tokens.problem.value}</Banner>}
      <Panel
        title="API tokens"
        flush
        actions={
          <Button small icon={Plus} onClick={() => setCreating(true)}>
            New token
          </Button>
        }
      >
        {list.length || !tokens.loaded.value ? (
          <DataTable
            label="API tokens"
            columns={COLUMNS}
            items={list}
            keyOf={(t) => t.id}
            actions={(t) => (
              <Button
                small
                variant="ghost"
                icon={Trash2}
                label={`Delete ${t.name}`}
                onClick={() => void drop(t)}
              />
            )}
          />
        ) : (
          <Empty icon={KeyRound} title="No tokens">
            For scripts and other programs: <code>Authorization: Bearer TOKEN</code>
          </Empty>
        )}
      </Panel>
      {creating && <CreateToken onMade={setMade} onClose={() => setCreating(false)} />}
      {made && (
        <Dialog
          title={`Token ${made.name}`}
          size="medium"
          onClose={() => setMade(null)}
          footer={
            <Button variant="primary" onClick={() => setMade(null)}>
              Done
            </Button>
          }
        >
          <p>Copy it now: it is not shown again.</p>
          <div class="secret">
            <code>{made.token}</code>
            <CopyButton text={made.token} label="Copy the token" />
          </div>
        </Dialog>
      )}
    </>
  );
}
