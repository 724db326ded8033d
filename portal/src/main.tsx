import '@fontsource-variable/inter/wght.css';
import '@fontsource-variable/jetbrains-mono/wght.css';
import './styles/tokens.css';
import './styles/base.css';
import './styles/forms.css';
import './styles/table.css';
import './styles/chart.css';
import './styles/shell.css';
import './styles/pages.css';
import { render } from 'preact';
import { App } from './app/App';
import { applyTheme } from './state/preferences';
import { resume } from './state/store';

applyTheme();
void resume();
render(<App />, document.getElementById('app')!);
