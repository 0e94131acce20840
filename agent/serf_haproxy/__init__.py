"""Serf's membership events become HAProxy's servers.

The way of an event:

Serf agent ──exec──► handlers/member_event ──► nodes/NAME ──wake──► daemon
│ one pass (control.reconcile):
serf/    HEAR    node files, corrected by the roster ─┐               ▼
observe() ─► Snapshot
policy/  DECIDE                                    decide()  ─► Decision   an entry for every node and service
config/  WRITE                                     render()  ─► Config     the text of haproxy.cfg
diff()    ─► Changes    commands for the runtime socket
haproxy/ ACT     run time, or reload, confirmed ◄─ apply()   ─► Outcome
control/ LOOP    all of it in order; the report of it reads the same Snapshot and Decision
daemon/  STAY    when the next pass is due
"""

__version__ = "0.1.0"
