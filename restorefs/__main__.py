"""python -m restorefs"""

from restorefs.cli import main

main()
