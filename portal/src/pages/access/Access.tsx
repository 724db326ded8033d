// Who may use this host: users, groups, grants, roles, tokens.
import { isAdministrator } from '../../state/store';
import { Page, Tabs } from '../../ui/bits';
import { GrantTable } from './GrantTable';
import { Groups } from './Groups';
import { Roles } from './Roles';
import { Tokens } from './Tokens';
import { Users } from './Users';

const TABS = [
  { name: '', text: 'Users', admin: true, view: Users },
  { name: 'groups', text: 'Groups', admin: true, view: Groups },
  { name: 'grants', text: 'Grants', admin: true, view: () => <GrantTable title="Grants" /> },
  { name: 'roles', text: 'Roles', admin: false, view: Roles },
  { name: 'tokens', text: 'API tokens', admin: false, view: Tokens },
];

export function Access({ tab }: { tab: string }) {
  const shown = TABS.filter((t) => isAdministrator.value || !t.admin);
  const current = shown.find((t) => t.name === tab) ?? shown[0]!;
  const View = current.view;
  return (
    <Page title="Access">
      <Tabs
        label="Access"
        current={current.name ? `#/access/${current.name}` : '#/access'}
        items={shown.map((t) => ({
          href: t.name ? `#/access/${t.name}` : '#/access',
          text: t.text,
        }))}
      />
      <View />
    </Page>
  );
}
