complete -c scidex-route-health -s m -l manifest -d 'Route manifest, `-` for standard input [default: routes.json, else /etc/scidex-route-health/routes.json]' -r -F
complete -c scidex-route-health -l base-url -d 'Probe this address instead of the manifest\'s; turns recovery off' -r
complete -c scidex-route-health -l wait -d 'Repeat the sweep until it is healthy or this time is over' -r
complete -c scidex-route-health -l format -d 'What goes to standard output' -r -f -a "human\t'Lines for people'
json\t'One JSON object'"
complete -c scidex-route-health -l junit -d 'Also write a JUnit XML report' -r -F
complete -c scidex-route-health -l metrics -d 'Also write Prometheus metrics, for node_exporter\'s textfile collector' -r -F
complete -c scidex-route-health -l color -d 'When to use colour; `auto` honours NO_COLOR and CLICOLOR_FORCE' -r -f -a "auto\t'At a terminal, unless the environment says otherwise'
always\t'Always, except in the journal'
never\t'Never'"
complete -c scidex-route-health -l no-recover -d 'Probe and report only: run no systemctl, signal nothing'
complete -c scidex-route-health -l dry-run -d 'Decide on recovery and say what would be killed, but signal nothing'
complete -c scidex-route-health -l core -d 'Probe and report the core routes only'
complete -c scidex-route-health -l validate -d 'Check the manifest and print a summary, but probe nothing'
complete -c scidex-route-health -s q -l quiet -d 'Print nothing while healthy, otherwise only what is not OK (human format)'
complete -c scidex-route-health -s h -l help -d 'Print help (see more with \'--help\')'
complete -c scidex-route-health -s V -l version -d 'Print version'
