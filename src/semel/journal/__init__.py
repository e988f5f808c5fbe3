"""The only writer: kernel decisions inside store transactions.

Every function here takes a `Transaction` and is run by the committer, many to a commit (R3).
It may raise, and then the transaction has nothing of it. What a caller may show to anyone
waits until the commit (R4).
"""
