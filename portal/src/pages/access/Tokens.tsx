// Tokens for scripts. The secret is shown once, right after it was made.
import { useState } from 'preact/hooks';
import { KeyRound, Plus, Trash2 } from '../../ui/icons';
import { post } from '../../api/client';
import type { Role, Token, TokenMade } from '../../api/types';
import { ago, dateOnly } from '../../lib/format';
import { removeAsked } from '../../state/actions';
import { session, tokens } from '../../state/store';
import { CopyButton } from '../../ui/bits';
import { Button } from '../../ui/Button';
import type { Column } from '../../ui/DataTable';
import { Dialog } from '../../ui/Dialog';
import { SelectField, TextField } from '../../ui/Field';
import { Listing } from '../../ui/Listing';
import { FormDialog } from '../FormDialog';
import { useListed } from '../use-loaded';
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

const drop = (token: Token): Promise<boolean> =>
  removeAsked({
    title: `Delete the token ${token.name}?`,
    body: ['What uses it is refused from now on.'],
    action: 'Delete token',
    path: `/tokens/${token.id}`,
    failed: `${token.name} was not deleted`,
    then: () => tokens.load(),
  });

export function Tokens() {
  const list = useListed(tokens);
  const [creating, setCreating] = useState(false);
  const [made, setMade] = useState<TokenMade | null>(null);
  return (
    <>
      <Listing
        label="API tokens"
        title="API tokens"
        list={list}
        nothing={{
          icon: KeyRound,
          title: 'No tokens',
          text: (
            <>
              For scripts and other programs: <code>Authorization: Bearer TOKEN</code>
            </>
          ),
        }}
        headActions={
          <Button small icon={Plus} onClick={() => setCreating(true)}>
            New token
          </Button>
        }
        columns={COLUMNS}
        keyOf={(t) => t.id}
        nameOf={(t) => t.name}
        textOf={(t) => `${t.name} ${t.user} ${t.role}`}
        rowActions={(t) => [{ icon: Trash2, label: `Delete ${t.name}`, run: () => void drop(t) }]}
      />
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
