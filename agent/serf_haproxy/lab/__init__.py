"""A whole cluster of real processes on loopback, without a container; for the demo, tests and measurements.

- command: the command line, cheap to import
- cluster: the lab itself, `Lab`
- tour: the demo
- tour_steps: the steps of the demo
- tour_checks: what must be true after a step of the demo
- screen: the output of the demo
- plan: the parts of a lab before they start: names, addresses, ports
- launch: start parts of a lab, wait until they are served, stop all of it
- watch: the servers as they are seen through the balancers
- balancer: one s6 tree with HAProxy, the daemon and a Serf agent
- node: one application with its Serf agent
- serf_agent: the Serf agent of a node, with the key of its RPC
- services: the services beside the default one, and where clients reach them
- echo: the TCP application
- report: the output of `lab status`
- records: lab.json and its lock
- ports: addresses and port numbers
- programs: the programs that the lab starts, and their environment
- processes: processes, identified by id and start time
"""
