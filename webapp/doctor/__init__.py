"""`manage.py doctor`: looks at everything an installation stands on and says what to do about what is wrong.

A check is a function without arguments that yields findings. It may ask the network and the disk; it changes nothing.
"""
