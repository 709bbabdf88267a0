"""Locust's side: users for locustfiles, and runs over several machines. Only modules in here import Locust.

Processes with Locust in them: the one that ``locust`` starts, and :mod:`.master_process` and :mod:`.worker_process`.
:mod:`.master` is the other end of the former, in a process that gevent has not patched.
"""
