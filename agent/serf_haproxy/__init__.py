"""Serf's membership events become HAProxy's servers.

The way of an event:

    Serf agent ──exec──► handlers/member_event ──► nodes/NAME ──wake──► daemon
                                                                           │ one pass: control.reconcile
    serf/     HEAR    node files, corrected by the roster                  ▼
                                                            observe() ─► Snapshot
    policy/   DECIDE  one entry for every node and service  decide()  ─► Decision
    config/   WRITE   the text of haproxy.cfg               render()  ─► Config
                      commands for the runtime socket       diff()    ─► Changes
    haproxy/  ACT     at run time or by reload, confirmed   apply()   ─► Outcome
    control/  LOOP    all of it in order, and the Report of the same Snapshot and Decision
    daemon/   STAY    when the next pass is due
"""

__version__ = "0.1.0"
