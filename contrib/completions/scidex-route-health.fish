complete -c scidex-route-health -s m -l manifest -d 'Route manifest, `-` for standard input [default: routes.json, else /etc/scidex-route-health/routes.json]' -r -F
complete -c scidex-route-health -l base-url -d 'Probe this address instead of the manifest\'s; turns recovery off' -r
complete -c scidex-route-health -l wait -d 'Repeat the sweep until it is healthy or SECONDS have passed' -r
complete -c scidex-route-health -l format -d 'Format of the report on standard output' -r -f -a "human\t'Text for people'
json\t'One JSON object'"
complete -c scidex-route-health -l junit -d 'Also write a JUnit XML report' -r -F
complete -c scidex-route-health -l metrics -d 'Also write Prometheus metrics, for node_exporter\'s textfile collector' -r -F
complete -c scidex-route-health -l color -d 'When to use colour, never in the journal; `auto` honours NO_COLOR and CLICOLOR_FORCE' -r -f -a "auto\t''
always\t''
never\t''"
complete -c scidex-route-health -l no-recover -d 'Probe and report only: do not run systemctl or send signals'
complete -c scidex-route-health -l dry-run -d 'Show what would be killed, but send no signal'
complete -c scidex-route-health -l core -d 'Probe and report the core routes only'
complete -c scidex-route-health -l validate -d 'Check the manifest and print a summary, but probe nothing'
complete -c scidex-route-health -s q -l quiet -d 'Print nothing if healthy, otherwise only what is not OK (human format)'
complete -c scidex-route-health -s h -l help -d 'Print help (see more with \'--help\')'
complete -c scidex-route-health -s V -l version -d 'Print version'
