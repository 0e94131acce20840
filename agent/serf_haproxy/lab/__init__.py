"""A whole cluster of real processes on loopback, without a container: demo, test bed and benchmark bed.

- command: the command line, cheap to import
- cluster: the lab itself, `Lab`
- tour: the demo
- plan: what a lab will consist of, and whether there is room for it
- launch: starting parts of it, waiting until they are served, stopping all of it
- watch: what can be seen through the balancers
- balancer: one s6 tree of HAProxy, the resident and a Serf agent
- backend: one web application with its Serf agent
- report: what `lab status` shows
- records: lab.json, and the lock
- ports: who listens where
- programs: what is started, and the environment that it gets
- processes: processes by id and start time
"""
